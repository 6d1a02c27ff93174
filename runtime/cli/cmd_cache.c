/* moonkiln cache: the compiled kernels kept on disk. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/arena.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"
#include "runtime/gpu/cache.h"
#include "runtime/gpu/info.h"

typedef struct listing {
  mk_arena arena;
  char **lines;
  int count, cap;
  int64_t bytes;
} listing;

static bool list_item(void *user, const mk_cache_item *item) {
  listing *l = user;
  if (item->state != MK_CACHE_GOOD) return true;
  mk_text size = {0};
  mk_info_add_bytes(&size, item->file_bytes);
  char *line = mk_printf(&l->arena, "%-48s %10s %5lldd  %s", item->label, mk_text_str(&size),
                         (long long)(item->age_seconds / 86400), item->meta);
  mk_text_free(&size);
  MK_PUSH(&l->arena, l->lines, l->count, l->cap, line);
  l->bytes += item->file_bytes;
  return true;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int list(mk_cache *c) {
  listing l = {0};
  mk_text total = {0};
  mk_cache_visit(c, list_item, &l);
  if (l.count) qsort(l.lines, (size_t)l.count, sizeof *l.lines, by_text);
  for (int i = 0; i < l.count; i++) puts(l.lines[i]);
  mk_info_add_bytes(&total, l.bytes);
  printf("%d kernels, %s in %s\n", l.count, mk_text_str(&total), c->folder);
  mk_text_free(&total);
  mk_arena_free(&l.arena);
  return 0;
}

enum { OLD_SECONDS = 3600 }; /* a temporary file younger than this may be a process's at work */

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
  if (item->state == MK_CACHE_LEFTOVER && item->age_seconds < OLD_SECONDS) return true;
  *(item->state == MK_CACHE_DAMAGED ? &v->damaged : &v->leftover) += 1;
  printf("%s: %s\n", item->state == MK_CACHE_DAMAGED ? "damaged" : "left over", item->path);
  if (v->remove && unlink(item->path) && errno != ENOENT) {
    fprintf(stderr, "moonkiln: cannot delete %s: %s\n", item->path, strerror(errno));
    v->failed++;
  }
  return true;
}

static int verify(mk_cache *c, bool remove_bad) {
  verifying v = {.remove = remove_bad};
  mk_cache_visit(c, verify_item, &v);
  printf("%d kernels are good, %d damaged, %d left over from processes that were ended\n", v.good, v.damaged, v.leftover);
  if (remove_bad) return v.failed ? 1 : 0;
  if (v.damaged)
    printf("damaged ones are compiled again when they are needed; `moonkiln cache verify --remove` deletes them now\n");
  return v.damaged ? 1 : 0;
}

static int clear(mk_cache *c) {
  mk_cache_size removed;
  mk_status st = {0};
  mk_text size = {0};
  mk_cache_clear(c, &removed, &st);
  mk_info_add_bytes(&size, removed.bytes);
  printf("removed %d kernels, %s\n", removed.entries, mk_text_str(&size));
  mk_text_free(&size);
  return mk_exit_code(&st);
}

int cmd_cache(int argc, char **argv) {
  bool remove_bad = false;
  const mk_option options[] = {
      {.name = "remove", .kind = MK_OPT_FLAG, .target = &remove_bad, .help = "with verify: delete what is damaged or left over"},
  };
  const mk_command_line line = {
      .usage = "moonkiln cache list|verify|clear [--remove]",
      .summary =
          "Lists the compiled kernels kept on disk, checks every one (exit code 1 if one is damaged), or deletes them.\n"
          "The folder is MOONKILN_CACHE; `moonkiln info` shows it.",
      .options = options,
      .count = 1,
      .min_positional = 1,
      .max_positional = 1,
  };
  int first, code;
  if (!mk_options_parse(&line, argc, argv, &first, &code)) return code;
  const char *action = argv[first];
  bool known = !strcmp(action, "list") || !strcmp(action, "verify") || !strcmp(action, "clear");
  if (!known || (remove_bad && strcmp(action, "verify"))) {
    fprintf(stderr, "moonkiln: usage: %s\n", line.usage);
    return 2;
  }
  mk_cache cache;
  mk_cache_open(&cache, NULL);
  if (!cache.folder[0]) {
    fprintf(stderr, "moonkiln: there is no usable cache folder\n");
    return 1;
  }
  if (!strcmp(action, "list")) return list(&cache);
  return !strcmp(action, "verify") ? verify(&cache, remove_bad) : clear(&cache);
}
