/* A model's folder in either layout. Everything is looked for before anything is opened, so that one message has all that is
 * missing. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/base/text.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/json_util.h"

typedef struct mk_model_files {
  mk_arena arena;
  const char *folder;
  const char *dit[2], *text_encoder, *vae;
  mk_text missing;
} mk_model_files;

static const char *in(mk_model_files *f, const char *name) { return mk_printf(&f->arena, "%s/%s", f->folder, name); }

static void miss(mk_model_files *f, const char *what) { mk_text_addf(&f->missing, "%s%s", f->missing.len ? ", " : "", what); }

static const char *need_folder(mk_model_files *f, const char *name) {
  const char *path = in(f, name);
  if (mk_dir_exists(path)) return path;
  miss(f, mk_printf(&f->arena, "%s/", name));
  return NULL;
}

/* stem.safetensors where there is one, else stem.pth */
static const char *need_weights(mk_model_files *f, const char *stem) {
  static const char *const ends[] = {".safetensors", ".pth"};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    const char *path = mk_printf(&f->arena, "%s/%s%s", f->folder, stem, ends[i]);
    if (mk_file_exists(path)) return path;
  }
  miss(f, mk_printf(&f->arena, "%s.pth (or .safetensors)", stem));
  return NULL;
}

static const char *need_file(mk_model_files *f, const char *name) {
  const char *path = in(f, name);
  if (mk_file_exists(path)) return path;
  miss(f, name);
  return NULL;
}

static void locate_diffusers(mk_model *m, bool experts) {
  mk_model_files *f = m->files;
  f->dit[0] = need_folder(f, "transformer");
  if (experts) f->dit[1] = need_folder(f, "transformer_2");
  f->text_encoder = need_folder(f, "text_encoder");
  f->vae = need_folder(f, "vae");
  m->tokenizer = need_file(f, "tokenizer/spiece.model");
}

static void locate_original(mk_model *m, bool experts) {
  mk_model_files *f = m->files;
  if (experts) {
    f->dit[0] = need_folder(f, "high_noise_model");
    f->dit[1] = need_folder(f, "low_noise_model");
  } else {
    f->dit[0] = f->folder;
  }
  f->text_encoder = need_weights(f, "models_t5_umt5-xxl-enc-bf16");
  f->vae = need_weights(f, "Wan2.1_VAE");
  m->tokenizer = need_file(f, "google/umt5-xxl/spiece.model");
}

/* The component is in use when model_index.json names a class for it, not [null, null]. */
static bool has_component(const json_t *index, const char *name) {
  return json_is_string(json_array_get(json_object_get(index, name), 1));
}

static bool read_scheduler(mk_model *m, mk_status *st) {
  const char *path = in(m->files, "scheduler/scheduler_config.json");
  if (!mk_file_exists(path)) return true; /* every value it could give has an option */
  json_t *config = mk_json_load_object(path, st);
  if (!config) return false;
  bool ok = mk_json_get_number(config, path, "flow_shift", &m->scheduler_shift, st);
  if (ok && m->scheduler_shift < 0) {
    mk_fail(st, MK_EINPUT, "%s: field \"flow_shift\" is %g; it must be positive", path, m->scheduler_shift);
    ok = false;
  }
  json_decref(config);
  return ok;
}

static bool read_diffusers(mk_model *m, const char *index_path, mk_status *st) {
  m->layout = MK_LAYOUT_DIFFUSERS;
  json_t *index = mk_json_load_object(index_path, st);
  if (!index) return false;
  const char *class = "";
  bool expand = false, ok = mk_json_get_string(index, index_path, "_class_name", &class, st) &&
                            mk_json_get_bool(index, index_path, "expand_timesteps", &expand, st) &&
                            mk_json_get_number(index, index_path, "boundary_ratio", &m->boundary, st);
  if (ok && strcmp(class, "WanPipeline")) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: field \"_class_name\" is \"%.100s\"; only \"WanPipeline\" (text to video) is supported",
            index_path, class);
  } else if (ok && expand) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: field \"expand_timesteps\": models with one timestep per token (TI2V-5B) are not supported",
            index_path);
  } else if (ok && (m->boundary < 0 || m->boundary > 1)) {
    mk_fail(st, MK_EINPUT, "%s: field \"boundary_ratio\" is %g; it must lie in 0..1", index_path, m->boundary);
  }
  if (!mk_failed(st)) locate_diffusers(m, has_component(index, "transformer_2"));
  json_decref(index);
  return !mk_failed(st) && read_scheduler(m, st);
}

static bool locate(mk_model *m, mk_status *st) {
  mk_model_files *f = m->files;
  if (!mk_dir_exists(f->folder)) {
    mk_fail(st, MK_EINPUT, "%s: there is no such folder; give a model's folder", f->folder);
    return false;
  }
  const char *index = in(f, "model_index.json");
  m->layout = MK_LAYOUT_ORIGINAL;
  if (mk_file_exists(index)) {
    if (!read_diffusers(m, index, st)) return false;
  } else if (mk_dir_exists(in(f, "high_noise_model")) || mk_dir_exists(in(f, "low_noise_model"))) {
    locate_original(m, true);
  } else if (mk_file_exists(in(f, "config.json"))) {
    locate_original(m, false);
  } else {
    mk_fail(st, MK_EINPUT,
            "%s: is no model folder: it has neither model_index.json (diffusers) nor high_noise_model/ (Wan2.2) nor config.json "
            "(Wan2.1)",
            f->folder);
    return false;
  }
  if (f->missing.len) mk_fail(st, MK_EINPUT, "%s: these parts of the model are missing: %s", f->folder, mk_text_str(&f->missing));
  return !mk_failed(st);
}

/* By what the files tell: the authors' recommendations stand in their code, not in the checkpoint. */
static bool choose_defaults(mk_model *m, mk_status *st) {
  const char *path = mk_checkpoint_path(m->dit[0]), *type = "t2v";
  const json_t *config = mk_checkpoint_config_json(m->dit[0]);
  if (!config) {
    mk_fail(st, MK_EINPUT, "%s: config.json is missing", path);
    return false;
  }
  if (!mk_json_get_string(config, path, "model_type", &type, st)) return false;
  if (strcmp(type, "t2v")) {
    mk_fail(st, MK_EUNSUPPORTED, "%s: config.json: field \"model_type\" is \"%.50s\"; only t2v (text to video) is supported",
            path, type);
    return false;
  }
  m->defaults = mk_usual_defaults(m->dit[1] != NULL);
  if (!m->dit[1])
    m->boundary = 0;
  else if (!m->boundary)
    m->boundary = 0.875;
  return true;
}

static bool keep_string(mk_model_files *f, const json_t *object, const char *path, const char *key, const char **out,
                        mk_status *st) {
  if (!mk_json_get_string(object, path, key, out, st)) return false;
  if (*out) *out = mk_strdup(&f->arena, *out);
  return true;
}

/* A model that is made for other sizes than the authors' brings a file that says so. */
static bool read_own_defaults(mk_model *m, mk_status *st) {
  static const char *const known[] = {"width", "height", "frames", "fps", "grid", "negative"};
  const char *path = in(m->files, "moonkiln.json"), *key;
  if (!mk_file_exists(path)) return true;
  json_t *own = mk_json_load_object(path, st), *value;
  if (!own) return false;
  mk_model_defaults *d = &m->defaults;
  json_object_foreach(own, key, value) {
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(key, known[i])) i++;
    if (i == sizeof known / sizeof *known)
      mk_fail(st, MK_EINPUT, "%s: field \"%.50s\" is unknown; there are width, height, frames, fps, grid and negative", path,
              key);
  }
  bool ok = !mk_failed(st) && mk_json_get_int(own, path, "width", 1, 1 << 20, &d->width, st) &&
            mk_json_get_int(own, path, "height", 1, 1 << 20, &d->height, st) &&
            mk_json_get_int(own, path, "frames", 1, 1 << 20, &d->frames, st) &&
            mk_json_get_int(own, path, "fps", 1, 1000, &d->fps, st) && keep_string(m->files, own, path, "grid", &d->grid, st) &&
            keep_string(m->files, own, path, "negative", &d->negative, st);
  json_decref(own);
  return ok;
}

mk_model_defaults mk_usual_defaults(bool experts) {
  mk_model_defaults d = {.name = "T2V", .steps = 50, .width = 1280, .height = 720, .frames = 81, .fps = 16, .shift = 5};
  d.guidance[0] = d.guidance[1] = 5;
  if (!experts) return d;
  d.name = "T2V-A14B";
  d.steps = 40;
  d.shift = 12;
  d.guidance[0] = 4;
  d.guidance[1] = 3;
  return d;
}

mk_model *mk_model_open(const char *folder, mk_status *st) {
  mk_model *m = calloc(1, sizeof *m);
  if (m) m->files = calloc(1, sizeof *m->files);
  if (!m || !m->files) {
    mk_fail(st, MK_ENOMEM, "%s: no memory to open it", folder);
    mk_model_close(m);
    return NULL;
  }
  mk_model_files *f = m->files;
  size_t length = strlen(folder);
  while (length > 1 && folder[length - 1] == '/') length--;
  f->folder = mk_strndup(&f->arena, folder, length);
  bool ok = locate(m, st);
  for (int i = 0; i < 2 && ok; i++)
    if (f->dit[i]) ok = (m->dit[i] = mk_checkpoint_open(f->dit[i], st)) != NULL;
  ok = ok && (m->text_encoder = mk_checkpoint_open(f->text_encoder, st)) && (m->vae = mk_checkpoint_open(f->vae, st));
  if (ok && choose_defaults(m, st) && read_own_defaults(m, st)) return m;
  mk_model_close(m);
  return NULL;
}

void mk_model_close(mk_model *m) {
  if (!m) return;
  for (int i = 0; i < 2; i++) mk_checkpoint_close(m->dit[i]);
  mk_checkpoint_close(m->text_encoder);
  mk_checkpoint_close(m->vae);
  if (m->files) {
    mk_text_free(&m->files->missing);
    mk_arena_free(&m->files->arena);
  }
  free(m->files);
  free(m);
}
