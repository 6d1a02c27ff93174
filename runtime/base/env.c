#include "runtime/base/env.h"

#include <errno.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "runtime/base/file.h"

extern char **environ;

enum { MAX_WORKERS = 16, MAX_COUNT = 4096, COMPILE_SECONDS = 60 };

static const char system_cache[] = "/var/cache/moonkiln";
static const int64_t cache_bytes = 1ll << 30;

static const mk_env_switch switches[] = {
#define X(field, name, standard, meaning) {name, standard, meaning},
#include "runtime/base/env.def"
#undef X
};

const mk_env_switch *mk_env_switches(int *count) {
  *count = (int)(sizeof switches / sizeof *switches);
  return switches;
}

/* A whole number from 1 to max, or false. */
static bool parse_count(const char *text, int max, int *out) {
  char *end;
  errno = 0;
  long v = strtol(text, &end, 10);
  if (errno || end == text || *end || v < 1 || v > max) return false;
  *out = (int)v;
  return true;
}

bool mk_env_parse_bytes(const char *text, int64_t *out) {
  static const char units[] = "KMGT";
  char *end;
  errno = 0;
  if (!strcmp(text, "off")) {
    *out = INT64_MAX;
    return true;
  }
  long long v = *text >= '0' && *text <= '9' ? strtoll(text, &end, 10) : -1;
  if (v < 0 || errno) return false;
  const char *unit = *end ? strchr(units, *end) : NULL;
  int shift = unit ? 10 * (int)(unit - units + 1) : 0;
  if ((*end && (!unit || end[1])) || v > INT64_MAX >> shift) return false;
  *out = (int64_t)v << shift;
  return true;
}

/* What a container may use: its quota can be far below the cores it sees. */
static int quota_cores(void) {
  FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
  if (!f) return MAX_COUNT;
  long long quota, period;
  int n = fscanf(f, "%lld %lld", &quota, &period); /* "max 100000" when unlimited */
  fclose(f);
  if (n != 2 || quota <= 0 || period <= 0) return MAX_COUNT;
  long long cores = (quota + period - 1) / period;
  return cores < MAX_COUNT ? (int)cores : MAX_COUNT;
}

static int count_cores(void) {
  cpu_set_t set;
  long cores = sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
  int quota = quota_cores();
  if (cores > quota) cores = quota;
  return cores < 1 ? 1 : (int)cores;
}

static bool join(char out[PATH_MAX], const char *a, const char *b) {
  int n = snprintf(out, PATH_MAX, "%s/%s", a, b);
  if (n > 0 && n < PATH_MAX) return true;
  out[0] = 0;
  return false;
}

static void find_cache(mk_env *env) {
  const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  env->cache_dir[0] = 0;
  if (env->cache) {
    snprintf(env->cache_dir, PATH_MAX, "%s", env->cache);
  } else if (xdg && xdg[0] == '/') { /* the standard says to ignore relative ones */
    join(env->cache_dir, xdg, "moonkiln");
  } else {
    struct passwd entry, *found = NULL;
    char buffer[4096];
    if ((!home || !*home) && !getpwuid_r(getuid(), &entry, buffer, sizeof buffer, &found) && found) home = found->pw_dir;
    if (home && *home) join(env->cache_dir, home, ".cache/moonkiln");
  }
}

static bool holds_data(const char *folder) {
  char path[PATH_MAX];
  return join(path, folder, "templates") && mk_dir_exists(path) && join(path, folder, "scripts/models") && mk_dir_exists(path);
}

static void find_data(mk_env *env) {
  env->data_dir[0] = 0;
  if (env->data) {
    snprintf(env->data_dir, PATH_MAX, "%s", env->data);
    return;
  }
  char program[PATH_MAX], candidate[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
  if (n <= 0) return;
  program[n] = 0;
  char *slash = strrchr(program, '/');
  if (!slash) return;
  *slash = 0;
  /* build/moonkiln in a checkout, build/unit/test_x, and an installed PREFIX/bin/moonkiln */
  static const char *const places[] = {"..", "../..", "../share/moonkiln"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (join(candidate, program, places[i]) && holds_data(candidate)) {
      if (!realpath(candidate, env->data_dir)) env->data_dir[0] = 0;
      return;
    }
}

void mk_env_read(mk_env *env) {
  *env = (mk_env){.log_level = MK_LOG_WARNING, .compile_seconds = COMPILE_SECONDS};
#define X(field, name, standard, meaning) \
  env->field = getenv(name);              \
  if (env->field && !*env->field) env->field = NULL;
#include "runtime/base/env.def"
#undef X
  env->cores = count_cores();
  env->worker_count = env->cores < MAX_WORKERS ? env->cores : MAX_WORKERS;
  env->thread_count = env->cores;
  if (env->log) mk_log_parse(env->log, &env->log_level);
  env->timeline_on = env->timeline && !strcmp(env->timeline, "on");
  if (env->workers) parse_count(env->workers, MAX_COUNT, &env->worker_count);
  if (env->threads) parse_count(env->threads, MAX_COUNT, &env->thread_count);
  if (env->compile_timeout) parse_count(env->compile_timeout, 1 << 20, &env->compile_seconds);
  env->cache_bytes = cache_bytes;
  if (env->cache_limit && !mk_env_parse_bytes(env->cache_limit, &env->cache_bytes)) env->cache_bytes = cache_bytes;
  find_cache(env);
  const char *shared = env->system_cache ? env->system_cache : system_cache;
  snprintf(env->system_dir, PATH_MAX, "%s", strcmp(shared, "off") ? shared : "");
  find_data(env);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static mk_env snapshot; /* written once, under `once` */
static void read_snapshot(void) { mk_env_read(&snapshot); }

const mk_env *mk_env_get(void) {
  pthread_once(&once, read_snapshot);
  return &snapshot;
}

static bool known(const char *assignment) {
  for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
    size_t n = strlen(switches[i].name);
    if (!strncmp(assignment, switches[i].name, n) && assignment[n] == '=') return true;
  }
  return false;
}

bool mk_env_check(mk_status *st) {
  mk_env env;
  mk_env_read(&env);
  mk_log_level level;
  int n;
  if (env.log && !mk_log_parse(env.log, &level))
    mk_fail(st, MK_EINPUT, "MOONKILN_LOG is \"%s\"; it takes error, warning, info or debug", env.log);
  if (env.timeline && strcmp(env.timeline, "on") && strcmp(env.timeline, "off"))
    mk_fail(st, MK_EINPUT, "MOONKILN_TIMELINE is \"%s\"; it takes on or off", env.timeline);
  if (env.workers && !parse_count(env.workers, MAX_COUNT, &n))
    mk_fail(st, MK_EINPUT, "MOONKILN_WORKERS is \"%s\"; it takes a number from 1 to %d", env.workers, MAX_COUNT);
  if (env.threads && !parse_count(env.threads, MAX_COUNT, &n))
    mk_fail(st, MK_EINPUT, "MOONKILN_THREADS is \"%s\"; it takes a number from 1 to %d", env.threads, MAX_COUNT);
  if (env.compile_timeout && !parse_count(env.compile_timeout, 1 << 20, &n))
    mk_fail(st, MK_EINPUT, "MOONKILN_COMPILE_TIMEOUT is \"%s\"; it takes a number of seconds, at least 1", env.compile_timeout);
  int64_t bytes;
  if (env.cache_limit && !mk_env_parse_bytes(env.cache_limit, &bytes))
    mk_fail(st, MK_EINPUT, "MOONKILN_CACHE_LIMIT is \"%s\"; it takes a size as 500M or 2G, or off", env.cache_limit);
  if (env.data && !holds_data(env.data))
    mk_fail(st, MK_EINPUT, "MOONKILN_DATA is \"%s\"; this folder does not hold scripts/models and templates", env.data);
  for (char **e = environ; *e; e++) {
    if (strncmp(*e, "MOONKILN_", 9) || !strncmp(*e, "MOONKILN_TEST_", 14) || known(*e)) continue;
    mk_log(MK_LOG_WARNING, "the environment variable %.*s is not known; `moonkiln info --env` lists those that are",
           (int)strcspn(*e, "="), *e);
  }
  return !mk_failed(st);
}

bool mk_env_data_path(const char *relative, char out[PATH_MAX], mk_status *st) {
  const mk_env *env = mk_env_get();
  if (!env->data_dir[0]) {
    mk_fail(st, MK_EINPUT,
            "the folder with scripts/ and templates/ was not found beside the program; set MOONKILN_DATA to it (a checkout's "
            "root will do)");
    return false;
  }
  if (join(out, env->data_dir, relative) && (mk_file_exists(out) || mk_dir_exists(out))) return true;
  mk_fail(st, MK_EINPUT, "%s is missing from the data folder %s", relative, env->data_dir);
  return false;
}
