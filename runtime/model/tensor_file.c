#include "runtime/model/tensor_file.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/model/safetensors.h"
#include "runtime/model/torch_zip.h"

mk_tensor_file *mk_tensor_file_new(const char *path, mk_status *st) {
  mk_tensor_file *f = calloc(1, sizeof *f);
  if (!f) {
    mk_fail(st, MK_ENOMEM, "%s: no memory to open it", path);
    return NULL;
  }
  f->path = mk_strdup(&f->arena, path);
  if (mk_file_map(path, &f->map, st)) return f;
  mk_tensor_file_close(f);
  return NULL;
}

void mk_tensor_file_close(mk_tensor_file *f) {
  if (!f) return;
  mk_file_unmap(&f->map);
  mk_arena_free(&f->arena);
  free(f);
}

static bool read_table(mk_tensor_file *f, mk_status *st) {
  if (mk_torch_zip_detect(&f->map)) return mk_torch_zip_read(f, st);
  if (f->map.bytes >= 4 && !memcmp(f->map.data, "\x80\x02\x8a\x0a", 4)) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: is in PyTorch's format from before version 1.6; load it with torch and save it again",
            f->path);
    return false;
  }
  return mk_safetensors_read(f, st);
}

mk_tensor_file *mk_tensor_file_open(const char *path, mk_status *st) {
  mk_tensor_file *f = mk_tensor_file_new(path, st);
  if (!f) return NULL;
  if (read_table(f, st) && mk_tensor_file_finish(f, st)) return f;
  mk_tensor_file_close(f);
  return NULL;
}

static int by_name(const void *a, const void *b) { return strcmp(((const mk_entry *)a)->name, ((const mk_entry *)b)->name); }
static int name_is(const void *key, const void *e) { return strcmp(key, ((const mk_entry *)e)->name); }

bool mk_tensor_file_finish(mk_tensor_file *f, mk_status *st) {
  if (f->count > 1) qsort(f->entries, (size_t)f->count, sizeof *f->entries, by_name);
  for (int i = 1; i < f->count; i++)
    if (!by_name(&f->entries[i - 1], &f->entries[i])) {
      mk_fail(st, MK_EINPUT, "%s: tensor \"%s\" is there twice", f->path, f->entries[i].name);
      return false;
    }
  return true;
}

mk_entry *mk_tensor_file_find(const mk_tensor_file *f, const char *name) {
  return f->count ? bsearch(name, f->entries, (size_t)f->count, sizeof *f->entries, name_is) : NULL;
}

const char *mk_tensor_file_metadata(const mk_tensor_file *f, const char *key) {
  for (int i = 0; i < f->metadata_count; i++)
    if (!strcmp(f->metadata[2 * i], key)) return f->metadata[2 * i + 1];
  return NULL;
}

static bool is_int64(const mk_entry *e) { return !strcmp(e->stored, "I64"); }

void mk_entry_describe(const mk_tensor_file *f, const mk_entry *e, mk_tensor *out) {
  *out = (mk_tensor){.name = e->name, .where = f->path, .dtype = MK_F32, .rank = e->rank};
  memcpy(out->dims, e->dims, sizeof out->dims);
  if (is_int64(e))
    out->dtype = MK_I32;
  else
    mk_dtype_parse(e->stored, &out->dtype);
  out->bytes = (size_t)mk_dims_count(e->dims, e->rank) * mk_dtype_size(out->dtype);
}

static bool convert_int64(mk_tensor_file *f, mk_entry *e, mk_status *st) {
  size_t count = e->bytes / sizeof(int64_t);
  int32_t *values = MK_NEW_ARRAY(&f->arena, int32_t, count ? count : 1);
  for (size_t i = 0; i < count; i++) {
    int64_t v;
    memcpy(&v, e->data + i * sizeof v, sizeof v);
    if (v < INT32_MIN || v > INT32_MAX) {
      mk_fail(st, MK_EUNSUPPORTED, "%s: tensor \"%s\": element %zu is %lld, which does not fit in 32 bits", f->path, e->name, i,
              (long long)v);
      return false;
    }
    values[i] = (int32_t)v;
  }
  e->converted = values;
  return true;
}

bool mk_entry_fetch(mk_tensor_file *f, mk_entry *e, mk_tensor *out, mk_status *st) {
  if (e->problem) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: tensor \"%s\": %s", f->path, e->name, e->problem);
    return false;
  }
  if (is_int64(e) && !e->converted && !convert_int64(f, e, st)) return false;
  mk_entry_describe(f, e, out);
  out->data = e->converted ? (const void *)e->converted : e->data;
  return true;
}
