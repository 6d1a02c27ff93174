#include "runtime/base/tensor.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
  const char *name;
  size_t bytes;
} dtypes[] = {
#define X(name, id, bytes) {#name, bytes},
#include "runtime/base/dtype.def"
#undef X
};

size_t mk_dtype_size(mk_dtype t) { return dtypes[t].bytes; }
const char *mk_dtype_name(mk_dtype t) { return dtypes[t].name; }

bool mk_dtype_parse(const char *name, mk_dtype *out) {
  for (int i = 0; i < MK_DTYPE_COUNT; i++)
    if (!strcasecmp(name, dtypes[i].name)) {
      *out = (mk_dtype)i;
      return true;
    }
  return false;
}

static uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

static float float_of(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

float mk_bf16_to_f32(uint16_t h) { return float_of((uint32_t)h << 16); }

uint16_t mk_f32_to_bf16(float f) {
  uint32_t u = bits_of(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float mk_f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 0x3ffu;
  if (exp == 31) return float_of(sign | 0x7f800000u | man << 13);
  if (exp) return float_of(sign | (exp + 112) << 23 | man << 13);
  float f = (float)man * 0x1p-24f;
  return float_of(bits_of(f) | sign);
}

uint16_t mk_f32_to_f16(float f) {
  uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
  if (a < 0x38800000u) { /* subnormal: adding 0.5 leaves the rounded mantissa in the low bits */
    float r = float_of(a) + 0.5f;
    return (uint16_t)(sign | (bits_of(r) - 0x3f000000u));
  }
  a += 0xc8000fffu + ((a >> 13) & 1u);
  return (uint16_t)(sign | a >> 13);
}

int64_t mk_dims_count(const int64_t *dims, int rank) {
  int64_t n = 1;
  for (int i = 0; i < rank; i++) n *= dims[i];
  return n;
}

const char *mk_dims_str(const int64_t *dims, int rank, char *buf, size_t size) {
  size_t n = (size_t)snprintf(buf, size, "[");
  for (int i = 0; i < rank && n < size; i++) n += (size_t)snprintf(buf + n, size - n, i ? ", %lld" : "%lld", (long long)dims[i]);
  if (n < size) snprintf(buf + n, size - n, "]");
  return buf;
}

static float load(const void *p, mk_dtype t, size_t i) {
  switch (t) {
    case MK_F32: return ((const float *)p)[i];
    case MK_F16: return mk_f16_to_f32(((const uint16_t *)p)[i]);
    case MK_BF16: return mk_bf16_to_f32(((const uint16_t *)p)[i]);
    default: return (float)((const int32_t *)p)[i];
  }
}

static void store(void *p, mk_dtype t, size_t i, float v) {
  switch (t) {
    case MK_F32: ((float *)p)[i] = v; break;
    case MK_F16: ((uint16_t *)p)[i] = mk_f32_to_f16(v); break;
    case MK_BF16: ((uint16_t *)p)[i] = mk_f32_to_bf16(v); break;
    default: ((int32_t *)p)[i] = (int32_t)v; break;
  }
}

void mk_convert(void *dst, mk_dtype dst_type, const void *src, mk_dtype src_type, size_t count) {
  if (dst_type == src_type) {
    memcpy(dst, src, count * mk_dtype_size(dst_type));
    return;
  }
  for (size_t i = 0; i < count; i++) store(dst, dst_type, i, load(src, src_type, i));
}
