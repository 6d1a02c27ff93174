#include "runtime/model/torch_zip.h"

#include <string.h>

#include "runtime/model/pickle.h"

enum { LOCAL_HEADER = 30, CENTRAL_HEADER = 46, END_RECORD = 22, END_RECORD_64 = 56, END_LOCATOR_64 = 20, MAX_COMMENT = 65535 };

typedef struct member {
  const char *name;
  const uint8_t *data;
  uint64_t bytes;
} member;

typedef struct archive {
  mk_tensor_file *f;
  mk_status *st;
  member *members;
  int count, cap;
} archive;

static bool damaged(archive *a, const char *what) {
  mk_fail(a->st, MK_EINPUT, "%s: %s; the file is truncated or damaged, fetch it again", a->f->path, what);
  return false;
}

static uint64_t number(const uint8_t *p, int bytes) {
  uint64_t n = 0;
  for (int i = 0; i < bytes; i++) n |= (uint64_t)p[i] << 8 * i;
  return n;
}

/* bytes at offset, NULL when they do not lie in the file */
static const uint8_t *at(const archive *a, uint64_t offset, uint64_t bytes) {
  const mk_map *map = &a->f->map;
  return offset <= map->bytes && bytes <= map->bytes - offset ? map->data + offset : NULL;
}

bool mk_torch_zip_detect(const mk_map *map) { return map->bytes >= 4 && !memcmp(map->data, "PK\3\4", 4); }

/* Place of the central directory, from the record at the archive's end. */
static bool find_directory(archive *a, uint64_t *offset, uint64_t *bytes, uint64_t *count) {
  uint64_t size = a->f->map.bytes, end = 0;
  const uint8_t *p = NULL;
  for (uint64_t back = END_RECORD; back <= size && back <= END_RECORD + MAX_COMMENT; back++) {
    p = at(a, size - back, END_RECORD);
    if (!memcmp(p, "PK\5\6", 4)) {
      end = size - back;
      break;
    }
    p = NULL;
  }
  if (!p) return damaged(a, "the zip archive has no end record");
  *count = number(p + 10, 2), *bytes = number(p + 12, 4), *offset = number(p + 16, 4);
  const uint8_t *locator = end >= END_LOCATOR_64 ? at(a, end - END_LOCATOR_64, END_LOCATOR_64) : NULL;
  if (locator && !memcmp(locator, "PK\6\7", 4)) {
    p = at(a, number(locator + 8, 8), END_RECORD_64);
    if (!p || memcmp(p, "PK\6\6", 4)) return damaged(a, "the zip64 end record is not where it should be");
    *count = number(p + 32, 8), *bytes = number(p + 40, 8), *offset = number(p + 48, 8);
  }
  return at(a, *offset, *bytes) || damaged(a, "the zip directory lies outside the file");
}

/* Replaces sizes that do not fit in 32 bits by those of the zip64 field. */
static bool read_zip64(archive *a, const uint8_t *extra, uint64_t bytes, uint64_t *values[3]) {
  for (uint64_t i = 0; i + 4 <= bytes;) {
    uint64_t id = number(extra + i, 2), length = number(extra + i + 2, 2), used = 0;
    i += 4;
    if (length > bytes - i) return damaged(a, "a zip directory entry is malformed");
    for (int k = 0; id == 1 && k < 3; k++) {
      if (*values[k] != UINT32_MAX) continue;
      if (used + 8 > length) return damaged(a, "a zip64 entry is malformed");
      *values[k] = number(extra + i + used, 8);
      used += 8;
    }
    i += length;
  }
  return true;
}

static bool read_member(archive *a, const uint8_t *p, uint64_t left, uint64_t *used) {
  if (left < CENTRAL_HEADER || memcmp(p, "PK\1\2", 4)) return damaged(a, "a zip directory entry is malformed");
  uint64_t flags = number(p + 8, 2), method = number(p + 10, 2), packed = number(p + 20, 4), bytes = number(p + 24, 4);
  uint64_t name_bytes = number(p + 28, 2), extra_bytes = number(p + 30, 2), comment = number(p + 32, 2),
           local = number(p + 42, 4);
  *used = CENTRAL_HEADER + name_bytes + extra_bytes + comment;
  if (*used > left) return damaged(a, "a zip directory entry is malformed");
  member e = {.name = mk_strndup(&a->f->arena, (const char *)p + CENTRAL_HEADER, name_bytes)};
  uint64_t *values[3] = {&bytes, &packed, &local};
  if (!read_zip64(a, p + CENTRAL_HEADER + name_bytes, extra_bytes, values)) return false;
  if (method || (flags & 1) || packed != bytes) {
    mk_fail(a->st, MK_EUNSUPPORTED, "%s: member %.200s is compressed or encrypted; torch.save does not do that", a->f->path,
            e.name);
    return false;
  }
  const uint8_t *header = at(a, local, LOCAL_HEADER);
  if (!header || memcmp(header, "PK\3\4", 4)) return damaged(a, "a zip member is not where it should be");
  e.data = at(a, local + LOCAL_HEADER + number(header + 26, 2) + number(header + 28, 2), bytes);
  e.bytes = bytes;
  if (!e.data) return damaged(a, "a zip member lies outside the file");
  MK_PUSH(&a->f->arena, a->members, a->count, a->cap, e);
  return true;
}

static bool read_directory(archive *a) {
  uint64_t offset, bytes, count, used = 0;
  if (!find_directory(a, &offset, &bytes, &count)) return false;
  const uint8_t *p = at(a, offset, bytes);
  for (uint64_t i = 0; i < count; i++, p += used, bytes -= used)
    if (!read_member(a, p, bytes, &used)) return false;
  return true;
}

static const member *find(const archive *a, const char *name) {
  for (int i = 0; i < a->count; i++)
    if (!strcmp(a->members[i].name, name)) return &a->members[i];
  return NULL;
}

static const member *find_pickle(const archive *a) {
  for (int i = 0; i < a->count; i++) {
    const char *slash = strchr(a->members[i].name, '/');
    if (slash && !strcmp(slash, "/data.pkl")) return &a->members[i];
  }
  return NULL;
}

static uint64_t dtype_bytes(const char *name) {
  if (!strcmp(name, "I64") || !strcmp(name, "F64")) return 8;
  if (!strcmp(name, "F32") || !strcmp(name, "I32")) return 4;
  return !strcmp(name, "U8") || !strcmp(name, "I8") || !strcmp(name, "BOOL") ? 1 : 2;
}

static bool add_tensor(archive *a, const mk_pickled_tensor *t, const char *prefix) {
  mk_tensor_file *f = a->f;
  const member *storage = find(a, mk_printf(&f->arena, "%s/data/%s", prefix, t->storage));
  uint64_t width = dtype_bytes(t->dtype), count = 1, held;
  if (!storage) {
    mk_fail(a->st, MK_EINPUT, "%s: tensor \"%.200s\": member %s/data/%.50s is missing", f->path, t->name, prefix, t->storage);
    return false;
  }
  mk_entry e = {.name = t->name, .stored = t->dtype, .rank = t->rank <= MK_MAX_RANK ? t->rank : 0};
  bool dense = true, fits = !__builtin_mul_overflow((uint64_t)t->storage_count, width, &held) && held <= storage->bytes;
  for (int i = t->rank - 1; i >= 0 && fits; i--) {
    dense = dense && (t->dims[i] == 1 || (uint64_t)t->strides[i] == count);
    fits = !__builtin_mul_overflow(count, (uint64_t)t->dims[i], &count) && count <= (uint64_t)t->storage_count;
    if (i < MK_MAX_RANK) e.dims[i] = t->dims[i];
  }
  if (!fits || (uint64_t)t->offset > (uint64_t)t->storage_count - count) {
    mk_fail(a->st, MK_EINPUT, "%s: tensor \"%.200s\": its shape does not fit in its storage; the file is damaged", f->path,
            t->name);
    return false;
  }
  e.data = storage->data + (uint64_t)t->offset * width;
  e.bytes = count * width;
  bool usable = width >= 2 && strcmp(t->dtype, "F64") && strcmp(t->dtype, "I16");
  if (t->rank > MK_MAX_RANK)
    e.problem = mk_printf(&f->arena, "it has %d dimensions; at most %d are supported", t->rank, MK_MAX_RANK);
  else if (!usable)
    e.problem = mk_printf(&f->arena, "dtype %s is not supported; F32, BF16, F16, I32 and I64 are", t->dtype);
  else if (!dense)
    e.problem = "it is stored with strides; save it again after .contiguous()";
  else if ((uintptr_t)e.data % width)
    e.problem = "its bytes are not aligned; save it again";
  MK_PUSH(&f->arena, f->entries, f->count, f->cap, e);
  return true;
}

bool mk_torch_zip_read(mk_tensor_file *f, mk_status *st) {
  archive a = {.f = f, .st = st};
  if (!read_directory(&a)) return false;
  const member *pickle = find_pickle(&a);
  if (!pickle) {
    mk_fail(st, MK_EINPUT, "%s: a zip archive with no data.pkl in it; it was not made by torch.save", f->path);
    return false;
  }
  const char *prefix = mk_strndup(&f->arena, pickle->name, (size_t)(strchr(pickle->name, '/') - pickle->name));
  const member *order = find(&a, mk_printf(&f->arena, "%s/byteorder", prefix));
  if (order && (order->bytes != 6 || memcmp(order->data, "little", 6))) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: its tensors are big-endian; save it again on a little-endian machine", f->path);
    return false;
  }
  mk_pickled_tensor *tensors;
  int count;
  if (!mk_pickle_read(&f->arena, pickle->data, pickle->bytes, f->path, &tensors, &count, st)) return false;
  for (int i = 0; i < count; i++)
    if (!add_tensor(&a, &tensors[i], prefix)) return false;
  return true;
}
