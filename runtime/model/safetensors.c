#include "runtime/model/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/json_util.h"

enum { LENGTH_BYTES = 8 };
static const uint64_t MAX_HEADER = 100u << 20; /* the format's own limit */

static const struct {
  const char *name;
  uint64_t bits;
  bool usable;
} dtypes[] = {
    {"F32", 32, true},     {"BF16", 16, true},    {"F16", 16, true},  {"I32", 32, true},  {"I64", 64, true},
    {"F64", 64, false},    {"I16", 16, false},    {"I8", 8, false},   {"U64", 64, false}, {"U32", 32, false},
    {"U16", 16, false},    {"U8", 8, false},      {"BOOL", 8, false}, {"C64", 64, false}, {"F8_E4M3", 8, false},
    {"F8_E5M2", 8, false}, {"F8_E8M0", 8, false},
};

typedef struct reader {
  mk_tensor_file *f;
  const uint8_t *data; /* first byte after the header */
  uint64_t bytes;      /* from there to the end of the file */
  mk_status *st;
} reader;

static bool bad_tensor(reader *r, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool bad_tensor(reader *r, const char *name, const char *format, ...) {
  va_list args;
  va_start(args, format);
  mk_vfail(r->st, MK_EINPUT, format, args);
  va_end(args);
  mk_fail_context(r->st, "%s: tensor \"%.200s\"", r->f->path, name);
  return false;
}

static bool read_shape(reader *r, mk_entry *e, const json_t *shape, uint64_t *count) {
  if (!json_is_array(shape)) return bad_tensor(r, e->name, "field \"shape\" must be an array of sizes");
  size_t rank = json_array_size(shape);
  *count = 1;
  for (size_t i = 0; i < rank; i++) {
    const json_t *size = json_array_get(shape, i);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
      return bad_tensor(r, e->name, "field \"shape\": size %zu must be an integer, zero or more", i);
    int64_t value = json_integer_value(size);
    if (__builtin_mul_overflow(*count, (uint64_t)value, count) || *count > INT64_MAX)
      return bad_tensor(r, e->name, "field \"shape\": too many elements");
    if (i < MK_MAX_RANK) e->dims[i] = value;
  }
  e->rank = rank <= MK_MAX_RANK ? (int)rank : 0;
  if (rank > MK_MAX_RANK)
    e->problem = mk_printf(&r->f->arena, "it has %zu dimensions; at most %d are supported", rank, MK_MAX_RANK);
  return true;
}

static bool read_offsets(reader *r, const mk_entry *e, const json_t *offsets, uint64_t range[2]) {
  if (!json_is_array(offsets) || json_array_size(offsets) != 2)
    return bad_tensor(r, e->name, "field \"data_offsets\" must be [begin, end]");
  for (size_t i = 0; i < 2; i++) {
    const json_t *offset = json_array_get(offsets, i);
    if (!json_is_integer(offset) || json_integer_value(offset) < 0)
      return bad_tensor(r, e->name, "field \"data_offsets\" must hold two integers, zero or more");
    range[i] = (uint64_t)json_integer_value(offset);
  }
  if (range[0] > range[1])
    return bad_tensor(r, e->name, "field \"data_offsets\": begins at %" PRIu64 " after its end %" PRIu64, range[0], range[1]);
  if (range[1] > r->bytes)
    return bad_tensor(r, e->name,
                      "field \"data_offsets\": ends at byte %" PRIu64 " of the data, but the file has only %" PRIu64
                      "; it is truncated, fetch it again",
                      range[1], r->bytes);
  return true;
}

static bool read_tensor(reader *r, const char *name, const json_t *value) {
  mk_entry e = {.name = mk_strdup(&r->f->arena, name)};
  uint64_t count = 0, range[2] = {0}, need;
  if (!json_is_object(value)) return bad_tensor(r, name, "its header entry must be an object");
  const json_t *dtype = json_object_get(value, "dtype");
  if (!json_is_string(dtype)) return bad_tensor(r, name, "field \"dtype\" must be a string");
  e.stored = mk_strdup(&r->f->arena, json_string_value(dtype));
  size_t k = 0;
  while (k < sizeof dtypes / sizeof *dtypes && strcmp(dtypes[k].name, e.stored)) k++;
  bool known = k < sizeof dtypes / sizeof *dtypes;
  if (!read_shape(r, &e, json_object_get(value, "shape"), &count)) return false;
  if (!read_offsets(r, &e, json_object_get(value, "data_offsets"), range)) return false;
  e.data = r->data + range[0];
  e.bytes = range[1] - range[0];
  if (known) {
    if (__builtin_mul_overflow(count, dtypes[k].bits / 8, &need) || need != e.bytes) {
      char dims[160];
      mk_dims_str(e.dims, e.rank, dims, sizeof dims);
      return bad_tensor(r, name, "fields \"shape\" %s and \"dtype\" %s do not fit \"data_offsets\", a range of %zu bytes", dims,
                        e.stored, e.bytes);
    }
    if ((uintptr_t)e.data % (dtypes[k].bits / 8))
      return bad_tensor(r, name, "field \"data_offsets\": %s data is not aligned to %" PRIu64 " bytes; save the file again",
                        e.stored, dtypes[k].bits / 8);
  }
  if (!known || !dtypes[k].usable)
    e.problem = mk_printf(&r->f->arena, "dtype %s is not supported; F32, BF16, F16, I32 and I64 are", e.stored);
  MK_PUSH(&r->f->arena, r->f->entries, r->f->count, r->f->cap, e);
  return true;
}

static bool read_metadata(reader *r, json_t *metadata) {
  if (!json_is_object(metadata)) {
    mk_fail(r->st, MK_EINPUT, "%s: header field \"__metadata__\" must be an object", r->f->path);
    return false;
  }
  const char *key;
  json_t *value;
  r->f->metadata = MK_NEW_ARRAY(&r->f->arena, const char *, 2 * json_object_size(metadata) + 1);
  json_object_foreach(metadata, key, value) {
    if (!json_is_string(value)) {
      mk_fail(r->st, MK_EINPUT, "%s: header field \"__metadata__\": \"%.200s\" must be a string", r->f->path, key);
      return false;
    }
    r->f->metadata[2 * r->f->metadata_count] = mk_strdup(&r->f->arena, key);
    r->f->metadata[2 * r->f->metadata_count++ + 1] = mk_strdup(&r->f->arena, json_string_value(value));
  }
  return true;
}

static int by_place(const void *a, const void *b) {
  const mk_entry *x = a, *y = b;
  if (x->data != y->data) return x->data < y->data ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

/* Every byte of the data belongs to exactly one tensor. */
static bool check_tiling(reader *r) {
  mk_tensor_file *f = r->f;
  if (f->count) qsort(f->entries, (size_t)f->count, sizeof *f->entries, by_place);
  const uint8_t *end = r->data;
  for (int i = 0; i < f->count; i++) {
    const mk_entry *e = &f->entries[i];
    if (e->data < end)
      return bad_tensor(r, e->name, "field \"data_offsets\": overlaps tensor \"%.200s\"", f->entries[i - 1].name);
    if (e->data > end)
      return bad_tensor(r, e->name, "field \"data_offsets\": %zu bytes before it belong to no tensor", (size_t)(e->data - end));
    end = e->data + e->bytes;
  }
  if (end != r->data + r->bytes) {
    mk_fail(r->st, MK_EINPUT, "%s: %zu bytes after the last tensor belong to none; the file is damaged", f->path,
            (size_t)(r->data + r->bytes - end));
    return false;
  }
  return true;
}

bool mk_safetensors_read(mk_tensor_file *f, mk_status *st) {
  if (f->map.bytes < LENGTH_BYTES) {
    mk_fail(st, MK_EINPUT, "%s is no safetensors file: %zu bytes are too few for its header length", f->path, f->map.bytes);
    return false;
  }
  uint64_t length = 0;
  for (int i = 0; i < LENGTH_BYTES; i++) length |= (uint64_t)f->map.data[i] << 8 * i;
  if (length > MAX_HEADER || length > f->map.bytes - LENGTH_BYTES) {
    mk_fail(st, MK_EINPUT, "%s: header length %" PRIu64 " exceeds %s; the file is truncated or no safetensors file", f->path,
            length, length > MAX_HEADER ? "the format's limit of 100 MiB" : "the file");
    return false;
  }
  const char *header = (const char *)f->map.data + LENGTH_BYTES;
  if (!length || header[0] != '{') {
    mk_fail(st, MK_EINPUT, "%s: its header does not begin with '{'; it is no safetensors file", f->path);
    return false;
  }
  reader r = {f, f->map.data + LENGTH_BYTES + length, f->map.bytes - LENGTH_BYTES - length, st};
  json_t *root = mk_json_parse_object(header, length, mk_printf(&f->arena, "%s: header", f->path), st), *value;
  if (!root) return false;
  bool ok = true;
  const char *name;
  json_object_foreach(root, name, value) {
    ok = strcmp(name, "__metadata__") ? read_tensor(&r, name, value) : read_metadata(&r, value);
    if (!ok) break;
  }
  json_decref(root);
  return ok && check_tiling(&r);
}
