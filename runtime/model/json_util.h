/* JSON files read strictly: duplicates refused, and every message names the file and the field. */
#ifndef MK_MODEL_JSON_UTIL_H
#define MK_MODEL_JSON_UTIL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

/* Parses bytes as one JSON object; `what` names them in messages. NULL on failure; the caller drops it with json_decref. */
json_t *mk_json_parse_object(const char *data, size_t bytes, const char *what, mk_status *st);
json_t *mk_json_load_object(const char *path, mk_status *st);

/* Optional fields: *out keeps its value when the key is absent or null. False with the status set for a wrong type or range. */
bool mk_json_get_int(const json_t *object, const char *path, const char *key, int64_t lo, int64_t hi, int64_t *out,
                     mk_status *st);
bool mk_json_get_number(const json_t *object, const char *path, const char *key, double *out, mk_status *st);
bool mk_json_get_bool(const json_t *object, const char *path, const char *key, bool *out, mk_status *st);
/* *out is borrowed from the object. */
bool mk_json_get_string(const json_t *object, const char *path, const char *key, const char **out, mk_status *st);

#endif
