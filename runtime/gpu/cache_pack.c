/* Many entries in one file, to carry to other machines: this header, the sizes of the entries, then their files one after the
 * other, by name. Header and sizes have a checksum here, every entry has its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/base/out_file.h"
#include "runtime/gpu/cache_internal.h"

typedef struct header {
  char magic[8];
  uint64_t checksum; /* of this header, with 0 here, and of the sizes */
  uint64_t count;
} header;

static const char magic[8] = {'M', 'K', 'P', 'A', 'C', 'K', '1', '\n'};

static uint64_t checksum(header h, const uint64_t *sizes) {
  h.checksum = 0;
  const mk_piece pieces[] = {{&h, sizeof h}, {sizes, h.count * sizeof *sizes}};
  return mk_hash64_pieces(pieces, 2);
}

/* ---- writing */

typedef struct exporting {
  mk_arena arena;
  const mk_cache *cache;
  const char *pattern;
  uint64_t *sizes;
  int count, cap, next;
  mk_out_file *file; /* NULL in the first pass, which takes the sizes */
  mk_status *st;
} exporting;

/* Of two good entries of one name, the first folder's is written. */
static bool twice(const mk_cache *c, const mk_cache_item *item) {
  char path[PATH_MAX];
  return item->shared && snprintf(path, sizeof path, "%s/%.2s/%s", c->folder, item->name, item->name) < PATH_MAX &&
         mk_file_exists(path);
}

static bool export_item(void *user, const mk_cache_item *item) {
  exporting *x = user;
  bool wanted = item->state == MK_CACHE_GOOD && item->entry->bytes && (!x->pattern || strstr(item->entry->label, x->pattern));
  if (!wanted || twice(x->cache, item)) return true;
  uint64_t bytes = (uint64_t)item->file_bytes;
  if (!x->file) {
    MK_PUSH(&x->arena, x->sizes, x->count, x->cap, bytes);
    return true;
  }
  if (x->next < x->count && x->sizes[x->next] == bytes) {
    x->next++;
    return mk_out_write(x->file, item->data, (size_t)bytes, x->st);
  }
  x->next = -1;
  return false;
}

/* Both passes read the files, so that a large cache needs no memory; another process may change the folder in between. */
static bool write_pack(exporting *x, mk_cache *c, mk_status *st) {
  header h = {.count = (uint64_t)x->count};
  memcpy(h.magic, magic, sizeof magic);
  h.checksum = checksum(h, x->sizes);
  if (!mk_out_write(x->file, &h, sizeof h, st)) return false;
  if (x->count && !mk_out_write(x->file, x->sizes, sizeof *x->sizes * (size_t)x->count, st)) return false;
  mk_cache_visit(c, export_item, x);
  if (!mk_failed(st) && x->next != x->count) mk_fail(st, MK_EIO, "the cache was changed while it was exported; do it again");
  return !mk_failed(st);
}

bool mk_cache_export(mk_cache *c, const char *path, const char *pattern, mk_cache_size *written, mk_status *st) {
  exporting x = {.cache = c, .pattern = pattern, .st = st};
  bool ok = false;
  mk_cache_visit(c, export_item, &x);
  *written = (mk_cache_size){x.count, 0};
  for (int i = 0; i < x.count; i++) written->bytes += (int64_t)x.sizes[i];
  x.file = mk_out_open(path, st);
  if (x.file && write_pack(&x, c, st))
    ok = mk_out_commit(x.file, st);
  else
    mk_out_discard(x.file);
  mk_arena_free(&x.arena);
  return ok;
}

/* ---- reading */

typedef struct pack {
  header h;
  uint64_t *sizes;     /* owned */
  const char *entries; /* of the data */
} pack;

/* Says what is wrong; NULL when every byte is as it was written. */
static const char *check(const char *data, size_t bytes, pack *p) {
  size_t left = bytes - sizeof p->h;
  if (bytes < sizeof p->h || memcmp(data, magic, sizeof magic - 2)) return "is no packed cache";
  memcpy(&p->h, data, sizeof p->h);
  if (memcmp(p->h.magic, magic, sizeof magic)) return "was written by another version of moonkiln";
  if (p->h.count > left / sizeof *p->sizes) return "is damaged or cut off";
  p->sizes = malloc(p->h.count * sizeof *p->sizes + 1);
  if (!p->sizes) return "is too large for this machine's memory";
  memcpy(p->sizes, data + sizeof p->h, p->h.count * sizeof *p->sizes);
  if (checksum(p->h, p->sizes) != p->h.checksum) return "is damaged";
  left -= p->h.count * sizeof *p->sizes;
  p->entries = data + bytes - left;
  const char *at = p->entries;
  for (uint64_t i = 0; i < p->h.count; i++) {
    mk_cache_parsed e;
    if (p->sizes[i] > left) return "is cut off";
    if (!mk_cache_parse(at, (size_t)p->sizes[i], &e)) return "is damaged";
    at += p->sizes[i];
    left -= p->sizes[i];
  }
  return left ? "is damaged: something follows its end" : NULL;
}

bool mk_cache_import(mk_cache *c, const char *path, mk_cache_size *added, mk_cache_size *present, mk_status *st) {
  size_t bytes;
  pack p = {0};
  *added = *present = (mk_cache_size){0};
  char *data = mk_file_read(path, &bytes, st);
  if (!data) return false;
  const char *wrong = check(data, bytes, &p), *at = p.entries;
  if (wrong) mk_fail(st, MK_EINPUT, "%s %s; nothing was imported", path, wrong);
  for (uint64_t i = 0; i < p.h.count && !mk_failed(st); i++) {
    bool there;
    if (mk_cache_publish(c, at, (size_t)p.sizes[i], &there)) {
      mk_cache_size *size = there ? present : added;
      size->entries++;
      size->bytes += (int64_t)p.sizes[i];
    } else {
      mk_fail(st, MK_EIO, "%s: the cache folder could not be filled", c->folder);
    }
    at += p.sizes[i];
  }
  free(p.sizes);
  free(data);
  return !mk_failed(st);
}
