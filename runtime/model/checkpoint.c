#include "runtime/model/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/json_util.h"
#include "runtime/model/tensor_file.h"

static const char INDEX_END[] = ".safetensors.index.json", FILE_END[] = ".safetensors";

typedef struct place { /* where a tensor is */
  mk_tensor_file *file;
  mk_entry *entry;
} place;

struct mk_checkpoint {
  mk_arena arena;
  const char *path;
  mk_tensor_file **files;
  int nfiles, files_cap;
  place *places; /* sorted by name */
  int count, cap;
  char *config_text; /* malloc'd */
  json_t *config;
  mk_source source;
};

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && !strcmp(text + n - m, end);
}

/* ---- the source ---- */

static int by_name(const void *a, const void *b) {
  return strcmp(((const place *)a)->entry->name, ((const place *)b)->entry->name);
}
static int name_is(const void *key, const void *p) { return strcmp(key, ((const place *)p)->entry->name); }

static const place *find(const mk_checkpoint *c, const char *name) {
  return c->count ? bsearch(name, c->places, (size_t)c->count, sizeof *c->places, name_is) : NULL;
}

static bool describe(void *self, const char *name, mk_tensor *out) {
  const place *p = find(self, name);
  if (p) mk_entry_describe(p->file, p->entry, out);
  return p != NULL;
}

static bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  const place *p = find(self, name);
  if (p) return mk_entry_fetch(p->file, p->entry, out, st);
  mk_fail(st, MK_EINPUT, "%s: has no tensor \"%.200s\"", ((mk_checkpoint *)self)->path, name);
  return false;
}

/* ---- opening ---- */

static mk_tensor_file *open_file(mk_checkpoint *c, const char *path, mk_status *st) {
  mk_tensor_file *f = mk_tensor_file_open(path, st);
  if (f) MK_PUSH(&c->arena, c->files, c->nfiles, c->files_cap, f);
  return f;
}

static void add_place(mk_checkpoint *c, mk_tensor_file *f, mk_entry *e) {
  place p = {f, e};
  MK_PUSH(&c->arena, c->places, c->count, c->cap, p);
}

static bool open_single(mk_checkpoint *c, const char *path, mk_status *st) {
  mk_tensor_file *f = open_file(c, path, st);
  for (int i = 0; f && i < f->count; i++) add_place(c, f, &f->entries[i]);
  return f != NULL;
}

/* The shard of that name, opened at its first use. */
static mk_tensor_file *shard(mk_checkpoint *c, const char *index, const char *tensor, const char *name, mk_status *st) {
  const char *path = mk_printf(&c->arena, "%.*s%s", (int)(strrchr(index, '/') - index) + 1, index, name);
  for (int i = c->nfiles - 1; i >= 0; i--)
    if (!strcmp(c->files[i]->path, path)) return c->files[i];
  if (!*name || strchr(name, '/')) {
    mk_fail(st, MK_EINPUT, "%s: field \"weight_map\": \"%.200s\" must name a file in the same folder, not \"%.200s\"", index,
            tensor, name);
    return NULL;
  }
  if (!mk_file_exists(path)) {
    mk_fail(st, MK_EINPUT, "%s: field \"weight_map\": tensor \"%.200s\" is in %.200s, which is not there; fetch that shard",
            index, tensor, name);
    return NULL;
  }
  return open_file(c, path, st);
}

static bool open_index(mk_checkpoint *c, const char *index, mk_status *st) {
  json_t *root = mk_json_load_object(index, st), *value;
  if (!root) return false;
  json_t *map = json_object_get(root, "weight_map");
  bool ok = json_is_object(map) && json_object_size(map) > 0;
  if (!ok) mk_fail(st, MK_EINPUT, "%s: field \"weight_map\" must be an object of tensor names and files", index);
  const char *name;
  json_object_foreach(map, name, value) {
    if (!ok) break;
    mk_tensor_file *f = NULL;
    if (json_is_string(value))
      f = shard(c, index, name, json_string_value(value), st);
    else
      mk_fail(st, MK_EINPUT, "%s: field \"weight_map\": the file of \"%.200s\" must be a string", index, name);
    mk_entry *e = f ? mk_tensor_file_find(f, name) : NULL;
    if (f && !e) mk_fail(st, MK_EINPUT, "%s: has no tensor \"%.200s\", which %s says it has", f->path, name, index);
    if (e) add_place(c, f, e);
    ok = e != NULL;
  }
  json_decref(root);
  return ok;
}

/* The one file in the folder whose name has this end: NULL with *count telling why. Usual names win over others. */
static const char *only_file(mk_checkpoint *c, const char *folder, const char *end, int *count, mk_status *st) {
  static const char *const usual[] = {"diffusion_pytorch_model", "model"};
  *count = 0;
  for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
    const char *path = mk_printf(&c->arena, "%s/%s%s", folder, usual[i], end);
    if (mk_file_exists(path)) return *count = 1, path;
  }
  DIR *dir = opendir(folder);
  if (!dir) {
    mk_fail(st, MK_EINPUT, "cannot open folder %s: %s", folder, strerror(errno));
    return NULL;
  }
  const char *found = NULL;
  for (struct dirent *e; (e = readdir(dir));)
    if (ends_with(e->d_name, end) && e->d_name[0] != '.') {
      if (!found) found = mk_printf(&c->arena, "%s/%s", folder, e->d_name);
      ++*count;
    }
  closedir(dir);
  return *count == 1 ? found : NULL;
}

static bool open_folder(mk_checkpoint *c, const char *folder, mk_status *st) {
  const char *config = mk_printf(&c->arena, "%s/config.json", folder);
  if (mk_file_exists(config)) {
    size_t bytes;
    c->config_text = mk_file_read(config, &bytes, st);
    c->config = c->config_text ? mk_json_parse_object(c->config_text, bytes, config, st) : NULL;
    if (!c->config) return false;
  }
  int indices, files;
  const char *path = only_file(c, folder, INDEX_END, &indices, st);
  if (path) return open_index(c, path, st);
  path = only_file(c, folder, FILE_END, &files, st);
  if (path && !indices) return open_single(c, path, st);
  if (indices > 1)
    mk_fail(st, MK_EINPUT, "%s: holds %d files *%s; one was expected", folder, indices, INDEX_END);
  else if (files > 1)
    mk_fail(st, MK_EINPUT, "%s: holds %d files *%s but no index (*%s) that says what is where", folder, files, FILE_END,
            INDEX_END);
  else
    mk_fail(st, MK_EINPUT, "%s: holds no *%s file", folder, FILE_END);
  return false;
}

static bool finish(mk_checkpoint *c, mk_status *st) {
  if (!c->count) {
    mk_fail(st, MK_EINPUT, "%s: holds no tensors", c->path);
    return false;
  }
  qsort(c->places, (size_t)c->count, sizeof *c->places, by_name);
  c->source = (mk_source){.self = c, .describe = describe, .fetch = fetch};
  return true;
}

mk_checkpoint *mk_checkpoint_open(const char *path, mk_status *st) {
  mk_checkpoint *c = calloc(1, sizeof *c);
  if (!c) {
    mk_fail(st, MK_ENOMEM, "%s: no memory to open it", path);
    return NULL;
  }
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  c->path = mk_strndup(&c->arena, path, length);
  bool ok = mk_dir_exists(c->path) ? open_folder(c, c->path, st) : open_single(c, c->path, st);
  if (ok && finish(c, st)) return c;
  mk_checkpoint_close(c);
  return NULL;
}

void mk_checkpoint_close(mk_checkpoint *c) {
  if (!c) return;
  for (int i = 0; i < c->nfiles; i++) mk_tensor_file_close(c->files[i]);
  json_decref(c->config);
  free(c->config_text);
  mk_arena_free(&c->arena);
  free(c);
}

const mk_source *mk_checkpoint_source(mk_checkpoint *c) { return &c->source; }
const char *mk_checkpoint_path(const mk_checkpoint *c) { return c->path; }
const char *mk_checkpoint_config(const mk_checkpoint *c) { return c->config_text; }
const json_t *mk_checkpoint_config_json(const mk_checkpoint *c) { return c->config; }
int mk_checkpoint_count(const mk_checkpoint *c) { return c->count; }
const char *mk_checkpoint_name(const mk_checkpoint *c, int i) { return c->places[i].entry->name; }

uint64_t mk_checkpoint_bytes(const mk_checkpoint *c) {
  uint64_t bytes = 0;
  for (int i = 0; i < c->count; i++) bytes += c->places[i].entry->bytes;
  return bytes;
}
