#include "runtime/model/json_util.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/base/file.h"

json_t *mk_json_parse_object(const char *data, size_t bytes, const char *what, mk_status *st) {
  json_error_t error;
  json_t *value = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &error);
  if (!value) {
    mk_fail(st, MK_EINPUT, "%s is not valid JSON: line %d, column %d: %s", what, error.line, error.column, error.text);
    return NULL;
  }
  if (!json_is_object(value)) {
    mk_fail(st, MK_EINPUT, "%s holds no JSON object at its top level", what);
    json_decref(value);
    return NULL;
  }
  return value;
}

json_t *mk_json_load_object(const char *path, mk_status *st) {
  size_t bytes = 0;
  char *data = mk_file_read(path, &bytes, st);
  if (!data) return NULL;
  json_t *value = mk_json_parse_object(data, bytes, path, st);
  free(data);
  return value;
}

/* The value of a key, NULL when it is absent or null. */
static const json_t *field(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  return json_is_null(value) ? NULL : value;
}

static bool wrong(mk_status *st, const char *path, const char *key, const char *wanted) {
  mk_fail(st, MK_EINPUT, "%s: field \"%s\" must be %s", path, key, wanted);
  return false;
}

bool mk_json_get_int(const json_t *object, const char *path, const char *key, int64_t lo, int64_t hi, int64_t *out,
                     mk_status *st) {
  const json_t *value = field(object, key);
  if (!value) return true;
  if (!json_is_integer(value)) return wrong(st, path, key, "an integer");
  int64_t v = json_integer_value(value);
  if (v < lo || v > hi) {
    mk_fail(st, MK_EINPUT, "%s: field \"%s\" is %lld; it must lie in %lld..%lld", path, key, (long long)v, (long long)lo,
            (long long)hi);
    return false;
  }
  *out = v;
  return true;
}

bool mk_json_get_number(const json_t *object, const char *path, const char *key, double *out, mk_status *st) {
  const json_t *value = field(object, key);
  if (!value) return true;
  if (!json_is_number(value) || !isfinite(json_number_value(value))) return wrong(st, path, key, "a number");
  *out = json_number_value(value);
  return true;
}

bool mk_json_get_bool(const json_t *object, const char *path, const char *key, bool *out, mk_status *st) {
  const json_t *value = field(object, key);
  if (!value) return true;
  if (!json_is_boolean(value)) return wrong(st, path, key, "true or false");
  *out = json_is_true(value);
  return true;
}

bool mk_json_get_string(const json_t *object, const char *path, const char *key, const char **out, mk_status *st) {
  const json_t *value = field(object, key);
  if (!value) return true;
  if (!json_is_string(value)) return wrong(st, path, key, "a string");
  *out = json_string_value(value);
  return true;
}
