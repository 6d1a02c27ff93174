/* The environment switches (env.def), read in one place, once. */
#ifndef MK_BASE_ENV_H
#define MK_BASE_ENV_H

#include <limits.h>
#include <stdint.h>

#include "runtime/base/log.h"
#include "runtime/base/status.h"

typedef struct mk_env {
#define X(field, name, standard, meaning) const char *field; /* as set; NULL when unset or empty */
#include "runtime/base/env.def"
#undef X
  char cache_dir[PATH_MAX];  /* resolved; "" when there is no home to put it in */
  char system_dir[PATH_MAX]; /* the cache of all users; "" when it is off */
  int64_t cache_bytes;       /* limit of the cache; INT64_MAX: none */
  char data_dir[PATH_MAX];   /* resolved; "" when scripts/ and templates/ were not found */
  mk_log_level log_level;
  bool timeline_on;
  int cores;        /* this process may use */
  int worker_count; /* at least 1 */
  int thread_count; /* at least 1 */
  int compile_seconds;
} mk_env;

/* The process's environment as it was at the first call; never changes, never NULL. Invalid values count as unset (see
 * mk_env_check). */
const mk_env *mk_env_get(void);

/* "500M" -> 524288000, "off" -> INT64_MAX; false when it is neither a size nor that. */
bool mk_env_parse_bytes(const char *text, int64_t *out);

/* Reads the environment as it is now; strings are borrowed from it. For tests; everything else uses mk_env_get. */
void mk_env_read(mk_env *env);

/* False with the status set when a switch has an invalid value. Warns of unknown MOONKILN_ names: misspellings, most likely. */
bool mk_env_check(mk_status *st);

/* "DATA_DIR/relative" into out; false with the status set when the data folder or the file is missing. */
bool mk_env_data_path(const char *relative, char out[PATH_MAX], mk_status *st);

typedef struct mk_env_switch {
  const char *name, *standard, *meaning;
} mk_env_switch;
const mk_env_switch *mk_env_switches(int *count); /* the table, for printing */

#endif
