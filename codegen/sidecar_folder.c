/* The files of templates: the built-in folder, and before it those of the user. */
#include <dirent.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/sidecar_internal.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

static const char *read_text(mk_sidecars *s, const char *path, mk_status *st) {
  for (int i = 0; i < s->nfiles; i++)
    if (!strcmp(s->files[i].path, path)) return s->files[i].text;
  size_t bytes;
  char *text = mk_file_read(path, &bytes, st);
  if (!text) return NULL;
  mk_sidecar_file f = {mk_strdup(&s->arena, path), mk_strdup(&s->arena, text)};
  free(text);
  MK_PUSH(&s->arena, s->files, s->nfiles, s->files_cap, f);
  return f.text;
}

const char *mk_sidecars_text(mk_sidecars *s, const char *file, mk_status *st) {
  return read_text(s, mk_printf(&s->arena, "%s/%s", s->folder, file), st);
}

/* Parts are looked for beside the template first: the user's may use the built-in ones. */
const char *mk_sidecar_code(mk_sidecars *s, const mk_sidecar *one, mk_status *st) {
  mk_text t = {0};
  for (int i = 0; i <= one->nuses; i++) {
    const char *file = i < one->nuses ? one->uses[i] : mk_printf(&s->arena, "%s.cu", one->name);
    const char *path = mk_printf(&s->arena, "%s/%s", one->folder, file);
    if (i < one->nuses && !mk_file_exists(path)) path = mk_printf(&s->arena, "%s/%s", s->folder, file);
    const char *part = read_text(s, path, st);
    if (!part) {
      mk_fail_context(st, "template %s", one->shown);
      mk_text_free(&t);
      return NULL;
    }
    mk_text_add(&t, part);
    mk_text_add(&t, "\n");
  }
  const char *code = mk_strdup(&s->arena, mk_text_str(&t));
  mk_text_free(&t);
  return code;
}

static int by_name(const void *a, const void *b) { return strcmp(((const mk_sidecar *)a)->name, ((const mk_sidecar *)b)->name); }

static const mk_sidecar *find(const mk_sidecars *s, const char *name) {
  for (int i = 0; i < s->n; i++)
    if (!strcmp(s->items[i].name, name)) return &s->items[i];
  return NULL;
}

/* Said once for each set of folders: a program makes many plans. */
static bool is_news(const mk_sidecars *s) {
  static _Atomic uint64_t said;
  uint64_t now = mk_hash64(s->trial->templates, strlen(s->trial->templates));
  return atomic_exchange(&said, now) != now;
}

/* Adds a folder's sidecars but for names that are there already; returns how many pairs it has, or -1. */
static int add_folder(mk_sidecars *s, const char *folder, bool own, bool news, mk_status *st) {
  DIR *dir = opendir(folder);
  if (!dir) {
    mk_fail(st, own ? MK_EINPUT : MK_EIO, "%s: the templates folder cannot be read; %s", folder,
            own ? "give one with --templates or MOONKILN_TEMPLATES" : "set MOONKILN_DATA");
    return -1;
  }
  int pairs = 0, before = s->n;
  folder = mk_strdup(&s->arena, folder);
  for (struct dirent *d; (d = readdir(dir));) {
    size_t n = strlen(d->d_name);
    if (n < 5 || strcmp(d->d_name + n - 4, ".lua") != 0) continue;
    char *name = mk_strndup(&s->arena, d->d_name, n - 4);
    const char *shown = own ? mk_printf(&s->arena, "%s/%s", folder, d->d_name) : name;
    if (!mk_file_exists(mk_printf(&s->arena, "%s/%s.cu", folder, name))) {
      if (own && news) MK_PUSH(&s->arena, s->lone, s->nlone, s->lone_cap, shown);
      continue;
    }
    pairs++;
    const mk_sidecar *same = find(s, name);
    if (same && same->own && news && !own) mk_log(MK_LOG_WARNING, "%s takes the place of the built-in template", same->shown);
    if (same && news && own) mk_log(MK_LOG_WARNING, "%s is left out: %s has its name", shown, same->shown);
    mk_sidecar one = {.name = name, .folder = folder, .shown = shown, .own = own};
    if (!same) MK_PUSH(&s->arena, s->items, s->n, s->cap, one);
  }
  closedir(dir);
  /* the folder's own order is nobody's choice */
  if (s->n > before) qsort(s->items + before, (size_t)(s->n - before), sizeof *s->items, by_name);
  return pairs;
}

static int load_sidecar(lua_State *L) { /* (sidecars, sidecar) */
  mk_sidecars *s = lua_touserdata(L, 1);
  mk_sidecar *one = lua_touserdata(L, 2);
  const char *file = mk_printf(&s->arena, "%s.lua", one->name);
  s->script.folder = mk_printf(&s->arena, "%s/", one->folder);
  s->script.parts = mk_printf(&s->arena, "%s/", s->folder);
  mk_lua_chunk(L, mk_printf(&s->arena, "%s%s", s->script.folder, file), file);
  lua_call(L, 0, 1);
  if (!lua_istable(L, -1)) return luaL_error(L, "%s.lua must return a table", one->name);
  mk_sidecar_read(s, one, L);
  return 0;
}

/* A file alone may be there to be included. */
static int name_left_out(lua_State *L) { /* (sidecars) */
  const mk_sidecars *s = lua_touserdata(L, 1);
  for (int i = 0; i < s->nlone; i++)
    if (!mk_lua_included(L, s->lone[i]))
      mk_log(MK_LOG_WARNING, "%s is left out: there is no .cu of its name beside it, and no template includes it", s->lone[i]);
  return 0;
}

bool mk_sidecars_find(mk_sidecars *s, mk_status *st) {
  const char *own = s->trial->templates;
  bool news = own && is_news(s);
  for (const char *p = own; p && *p && !mk_failed(st);) {
    size_t length = strcspn(p, ":");
    char *folder = mk_strndup(&s->arena, p, length);
    if (length && !add_folder(s, folder, true, news, st))
      mk_fail(st, MK_EINPUT, "%s holds no template: it needs NAME.cu with NAME.lua (see templates/README.md)", folder);
    p += length + (p[length] == ':');
  }
  if (mk_failed(st) || add_folder(s, s->folder, false, news, st) < 0) return false;
  for (int i = 0; i < s->n; i++) {
    mk_sidecar *one = &s->items[i];
    if (!mk_sidecar_call(s, one->shown, load_sidecar, (void *[]){s, one}, 2, st)) return false;
  }
  s->script.folder = NULL;
  return !s->nlone || mk_sidecar_call(s, "sidecar", name_left_out, (void *[]){s}, 1, st);
}
