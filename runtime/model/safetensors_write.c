#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/out_file.h"
#include "runtime/model/safetensors.h"

struct mk_st_writer {
  mk_out_file *file;
  char *path;
  uint64_t left; /* bytes still to come */
  bool failed;   /* a write did: the file must not appear */
};

static const char *stored_name(mk_dtype t) {
  switch (t) {
    case MK_F16: return "F16";
    case MK_BF16: return "BF16";
    case MK_I32: return "I32";
    default: return "F32";
  }
}

static json_t *tensor_json(const mk_tensor *t, uint64_t begin) {
  json_t *shape = json_array();
  for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->dims[i]));
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", stored_name(t->dtype), "shape", shape, "data_offsets", (json_int_t)begin,
                   (json_int_t)(begin + t->bytes));
}

/* The header's JSON text, padded with spaces to a multiple of 8; malloc'd. */
static char *make_header(const char *path, const mk_tensor *tensors, int n, const char *const *metadata, int pairs,
                         uint64_t *total, mk_status *st) {
  json_t *root = json_object(), *pairs_json = json_object();
  for (int i = 0; i < pairs; i++) json_object_set_new(pairs_json, metadata[2 * i], json_string(metadata[2 * i + 1]));
  if (pairs) json_object_set(root, "__metadata__", pairs_json);
  json_decref(pairs_json);
  char *header = NULL;
  *total = 0;
  for (int i = 0; i < n; i++) {
    const mk_tensor *t = &tensors[i];
    if (*total % mk_dtype_size(t->dtype) || t->bytes != (size_t)mk_dims_count(t->dims, t->rank) * mk_dtype_size(t->dtype)) {
      mk_fail(st, MK_EINTERNAL, "%s: tensor \"%s\" is misplaced or of a wrong size", path, t->name);
      goto done;
    }
    if (json_object_get(root, t->name)) {
      mk_fail(st, MK_EINPUT, "%s: tensor \"%s\" was given twice", path, t->name);
      goto done;
    }
    if (json_object_set_new(root, t->name, tensor_json(t, *total))) {
      mk_fail(st, MK_EINPUT, "%s: the name of tensor %d is not valid UTF-8", path, i);
      goto done;
    }
    *total += t->bytes;
  }
  char *text = json_dumps(root, JSON_COMPACT);
  size_t length = text ? strlen(text) : 0, padded = (length + 7) / 8 * 8;
  header = text ? malloc(padded + 1) : NULL;
  if (header) {
    memcpy(header, text, length);
    memset(header + length, ' ', padded - length);
    header[padded] = 0;
  } else {
    mk_fail(st, MK_ENOMEM, "%s: no memory for the header", path);
  }
  free(text);
done:
  json_decref(root);
  return header;
}

mk_st_writer *mk_st_create(const char *path, const mk_tensor *tensors, int n, const char *const *metadata, int pairs,
                           mk_status *st) {
  mk_st_writer *w = calloc(1, sizeof *w);
  char *copy = strdup(path), *header = NULL;
  if (!w || !copy) {
    mk_fail(st, MK_ENOMEM, "cannot write %s: out of host memory", path);
    goto fail;
  }
  header = make_header(path, tensors, n, metadata, pairs, &w->left, st);
  if (!header) goto fail;
  uint8_t length[8];
  for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)strlen(header) >> 8 * i);
  w->file = mk_out_open(path, st);
  if (!w->file || !mk_out_write(w->file, length, sizeof length, st) || !mk_out_write(w->file, header, strlen(header), st))
    goto fail;
  free(header);
  w->path = copy;
  return w;
fail:
  free(header);
  free(copy);
  mk_st_discard(w);
  return NULL;
}

bool mk_st_write(mk_st_writer *w, const void *data, size_t bytes, mk_status *st) {
  if (bytes > w->left) {
    mk_fail(st, MK_EINTERNAL, "%s: more bytes than its tensors have", w->path);
    return false;
  }
  w->left -= bytes;
  w->failed = !mk_out_write(w->file, data, bytes, st) || w->failed;
  return !w->failed;
}

bool mk_st_commit(mk_st_writer *w, mk_status *st) {
  if (w->left) mk_fail(st, MK_EINTERNAL, "%s: %llu bytes of its tensors were not written", w->path, (unsigned long long)w->left);
  bool ok = !mk_failed(st) && !w->failed;
  mk_out_file *file = w->file;
  w->file = NULL;
  if (ok)
    ok = mk_out_commit(file, st);
  else
    mk_out_discard(file);
  mk_st_discard(w);
  return ok;
}

void mk_st_discard(mk_st_writer *w) {
  if (!w) return;
  mk_out_discard(w->file);
  free(w->path);
  free(w);
}

static int by_width(const void *a, const void *b) {
  const mk_tensor *x = *(const mk_tensor *const *)a, *y = *(const mk_tensor *const *)b;
  int difference = (int)mk_dtype_size(y->dtype) - (int)mk_dtype_size(x->dtype);
  return difference ? difference : strcmp(x->name, y->name);
}

bool mk_safetensors_save(const char *path, const mk_tensor *tensors, int n, const char *const *metadata, int pairs,
                         mk_status *st) {
  mk_arena arena = {0};
  const mk_tensor **order = MK_NEW_ARRAY(&arena, const mk_tensor *, n + 1);
  mk_tensor *sorted = MK_NEW_ARRAY(&arena, mk_tensor, n + 1);
  for (int i = 0; i < n; i++) order[i] = &tensors[i];
  qsort(order, (size_t)n, sizeof *order, by_width);
  for (int i = 0; i < n; i++) sorted[i] = *order[i];
  mk_st_writer *w = mk_st_create(path, sorted, n, metadata, pairs, st);
  bool ok = w != NULL;
  for (int i = 0; ok && i < n; i++) ok = mk_st_write(w, sorted[i].data, sorted[i].bytes, st);
  if (w) ok = mk_st_commit(w, st) && ok;
  mk_arena_free(&arena);
  return ok;
}
