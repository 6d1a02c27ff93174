/* moonkiln cache: the compiled kernels kept on disk. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/arena.h"
#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"
#include "runtime/gpu/cache.h"
#include "runtime/gpu/info.h"

typedef struct arguments {
  const char *operand; /* KEY or FILE; NULL when there is none */
  const char *kernel, *limit, *cubin;
  bool remove_bad;
} arguments;

static const char *bytes_text(mk_arena *a, int64_t bytes) {
  mk_text t = {0};
  mk_info_add_bytes(&t, bytes);
  const char *s = mk_strdup(a, mk_text_str(&t));
  mk_text_free(&t);
  return s;
}

/* Prints "DONE 3 kernels, 1.2 MiB" and what follows. */
static void print_size(const char *done, mk_cache_size size, const char *rest) {
  mk_arena arena = {0};
  printf("%s %d kernels, %s%s\n", done, size.entries, bytes_text(&arena, size.bytes), rest);
  mk_arena_free(&arena);
}

/* ---- list */

typedef struct listing {
  mk_arena arena;
  const char *kernel;
  char **lines;
  int count, cap, failed;
  int64_t bytes;
} listing;

static bool list_item(void *user, const mk_cache_item *item) {
  listing *l = user;
  if (item->state != MK_CACHE_GOOD || (l->kernel && !strstr(item->entry->label, l->kernel))) return true;
  char *line = mk_printf(&l->arena, "%-48s %.12s %10s %5lldd  %s%s", item->entry->label, item->name,
                         bytes_text(&l->arena, item->file_bytes), (long long)(item->idle_seconds / 86400), item->entry->meta,
                         item->shared ? "  (system's)" : "");
  MK_PUSH(&l->arena, l->lines, l->count, l->cap, line);
  l->bytes += item->file_bytes;
  l->failed += !item->entry->bytes;
  return true;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int list(mk_cache *c, const arguments *a) {
  listing l = {.kernel = a->kernel};
  mk_cache_visit(c, list_item, &l);
  if (l.count) qsort(l.lines, (size_t)l.count, sizeof *l.lines, by_text);
  for (int i = 0; i < l.count; i++) puts(l.lines[i]);
  printf("%d kernels", l.count - l.failed);
  if (l.failed) printf(" and %d that do not compile", l.failed);
  printf(", %s in %s%s%s\n", bytes_text(&l.arena, l.bytes), c->folder, c->folder[0] && c->shared[0] ? " and " : "", c->shared);
  mk_arena_free(&l.arena);
  return 0;
}

/* ---- show */

typedef struct showing {
  mk_arena arena;
  const char *key, *cubin;
  int matches;
  char *text, *name;
  mk_status st;
} showing;

static char *describe(showing *s, const mk_cache_item *item) {
  const mk_cache_entry *e = item->entry;
  const char *key = mk_strndup(&s->arena, item->key, item->key_bytes), *source = strstr(key, "\n\n");
  size_t head = source ? (size_t)(source - key) : strlen(key);
  return mk_printf(&s->arena, "%s\n%s\n%s\n%s, last used %lld days ago\n\n%.*s\n\n%s\n%s\n", e->label, item->path, e->meta,
                   bytes_text(&s->arena, item->file_bytes), (long long)(item->idle_seconds / 86400), (int)head, key, e->log,
                   source ? source + 2 : "");
}

static bool show_item(void *user, const mk_cache_item *item) {
  showing *s = user;
  if (item->state != MK_CACHE_GOOD || strncmp(item->name, s->key, strlen(s->key))) return true;
  if (s->name && !strcmp(s->name, item->name)) return true; /* in the system's folder as well */
  s->matches++;
  if (s->matches > 1) return true;
  s->name = mk_strdup(&s->arena, item->name);
  s->text = describe(s, item);
  if (s->cubin && !item->entry->bytes) mk_fail(&s->st, MK_EINPUT, "%s has no cubin: %s", item->entry->label, item->entry->meta);
  if (s->cubin && !mk_failed(&s->st)) mk_file_publish(s->cubin, item->entry->payload, item->entry->bytes, &s->st);
  return true;
}

static int show(mk_cache *c, const arguments *a) {
  showing s = {.key = a->operand, .cubin = a->cubin};
  if (strlen(s.key) < 4 || strspn(s.key, "0123456789abcdef") != strlen(s.key))
    mk_fail(&s.st, MK_EINPUT, "\"%.40s\" is no key of a kernel; give its first digits (at least 4) as `cache list` shows them",
            s.key);
  else
    mk_cache_visit(c, show_item, &s);
  if (!mk_failed(&s.st) && s.matches != 1)
    mk_fail(&s.st, MK_EINPUT,
            s.matches ? "%d kernels have a key that begins with %s; give more of it" : "no kernel (%d) has the key %s", s.matches,
            s.key);
  if (!mk_failed(&s.st)) fputs(s.text, stdout);
  mk_arena_free(&s.arena);
  return mk_exit_code(&s.st);
}

/* ---- verify */

typedef struct verifying {
  bool remove;
  int good, damaged, leftover, failed;
} verifying;

static bool verify_item(void *user, const mk_cache_item *item) {
  verifying *v = user;
  if (item->state == MK_CACHE_GOOD) {
    v->good++;
    return true;
  }
  if (item->state == MK_CACHE_LEFTOVER && item->idle_seconds < MK_CACHE_OLD_SECONDS) return true;
  *(item->state == MK_CACHE_DAMAGED ? &v->damaged : &v->leftover) += 1;
  printf("%s: %s\n", item->state == MK_CACHE_DAMAGED ? "damaged" : "left over", item->path);
  if (v->remove && !item->shared && unlink(item->path) && errno != ENOENT) {
    fprintf(stderr, "moonkiln: cannot delete %s: %s\n", item->path, strerror(errno));
    v->failed++;
  }
  return true;
}

static int verify(mk_cache *c, const arguments *a) {
  verifying v = {.remove = a->remove_bad};
  mk_cache_visit(c, verify_item, &v);
  printf("%d kernels are good, %d damaged, %d left over from processes that were ended\n", v.good, v.damaged, v.leftover);
  if (a->remove_bad) return v.failed ? 1 : 0;
  if (v.damaged)
    printf("damaged ones are compiled again when they are needed; `moonkiln cache verify --remove` deletes them now\n");
  return v.damaged ? 1 : 0;
}

/* ---- the rest */

static int trim(mk_cache *c, const arguments *a) {
  mk_cache_size removed;
  mk_status st = {0};
  int64_t limit = mk_env_get()->cache_bytes;
  if (a->limit && !mk_env_parse_bytes(a->limit, &limit)) {
    fprintf(stderr, "moonkiln: --limit %s: give a size as 500M or 2G\n", a->limit);
    return 2;
  }
  mk_cache_trim(c, limit, &removed, &st);
  print_size("removed", removed, "");
  return mk_exit_code(&st);
}

static int clear(mk_cache *c, const arguments *a) {
  (void)a;
  mk_cache_size removed;
  mk_status st = {0};
  mk_cache_clear(c, &removed, &st);
  print_size("removed", removed, "");
  return mk_exit_code(&st);
}

static int export(mk_cache *c, const arguments *a) {
  mk_cache_size written;
  mk_status st = {0};
  if (mk_cache_export(c, a->operand, a->kernel, &written, &st)) print_size("wrote", written, "");
  return mk_exit_code(&st);
}

static int import(mk_cache *c, const arguments *a) {
  mk_cache_size added, present;
  mk_status st = {0};
  if (mk_cache_import(c, a->operand, &added, &present, &st)) {
    char rest[64];
    snprintf(rest, sizeof rest, "; %d were there already", present.entries);
    print_size("added", added, rest);
  }
  return mk_exit_code(&st);
}

enum { KERNEL = 1, LIMIT = 2, CUBIN = 4, REMOVE = 8, /* options that an action takes */ OWN = 16 /* needs the user's folder */ };

static const struct action {
  const char *name, *operand;
  int (*run)(mk_cache *c, const arguments *a);
  int traits;
} actions[] = {
    {"list", NULL, list, KERNEL},      {"show", "KEY", show, CUBIN}, {"verify", NULL, verify, REMOVE},
    {"trim", NULL, trim, LIMIT | OWN}, {"clear", NULL, clear, OWN},  {"export", "FILE", export, KERNEL},
    {"import", "FILE", import, OWN},
};

/* NULL when there is no such action, or it does not take what was given. */
static const struct action *find_action(const char *name, const arguments *a) {
  int given = (a->kernel ? KERNEL : 0) | (a->limit ? LIMIT : 0) | (a->cubin ? CUBIN : 0) | (a->remove_bad ? REMOVE : 0);
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
    if (!strcmp(actions[i].name, name) && !actions[i].operand == !a->operand && !(given & ~actions[i].traits)) return &actions[i];
  return NULL;
}

int cmd_cache(int argc, char **argv) {
  arguments a = {0};
  const mk_option options[] = {
      {"kernel", MK_OPT_TEXT, &a.kernel, "NAME", "with list, export: kernels whose architecture and name hold NAME", 0, 0},
      {"cubin", MK_OPT_TEXT, &a.cubin, "FILE", "with show: writes the kernel's machine code", 0, 0},
      {"limit", MK_OPT_TEXT, &a.limit, "SIZE", "with trim: what may stay, as 500M (default MOONKILN_CACHE_LIMIT)", 0, 0},
      {"remove", MK_OPT_FLAG, &a.remove_bad, NULL, "with verify: delete what is damaged or left over", 0, 0},
  };
  const mk_command_line line = {
      .usage = "moonkiln cache list|show KEY|verify|trim|clear|export FILE|import FILE [options]",
      .summary =
          "The compiled kernels kept on disk, in MOONKILN_CACHE and MOONKILN_SYSTEM_CACHE (`moonkiln info` shows where).\n"
          "list: one line each: architecture and name, key, size, days since its last use, registers and memory.\n"
          "show: one of them whole: compiler, options, what the compiler said, source.\n"
          "verify: checks every one; exit code 1 if one is damaged.\n"
          "trim: deletes what was not used for longest. clear: deletes all.\n"
          "export, import: all in one file, for other machines. Import only what you trust: kernels are programs.",
      .options = options,
      .count = sizeof options / sizeof *options,
      .min_positional = 1,
      .max_positional = 2,
  };
  int first, code;
  if (!mk_options_parse(&line, argc, argv, &first, &code)) return code;
  a.operand = first + 1 < argc ? argv[first + 1] : NULL;
  const struct action *action = find_action(argv[first], &a);
  if (!action) {
    fprintf(stderr, "moonkiln: usage: %s\n", line.usage);
    return 2;
  }
  mk_cache cache;
  mk_cache_open(&cache, NULL);
  if (!cache.folder[0] && (!cache.shared[0] || (action->traits & OWN))) {
    fprintf(stderr, "moonkiln: there is no usable cache folder\n");
    return 1;
  }
  return action->run(&cache, &a);
}
