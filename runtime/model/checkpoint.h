/* Model weights on disk: a component's folder or file as one source of named tensors, and a whole model's folder. */
#ifndef MK_MODEL_CHECKPOINT_H
#define MK_MODEL_CHECKPOINT_H

#include <jansson.h>

#include "runtime/base/status.h"
#include "runtime/base/tensor.h"

/* ---- one component ---- */

typedef struct mk_checkpoint mk_checkpoint;

/* path: a .safetensors or .pth file, or a folder with one safetensors file or with an index (*.safetensors.index.json) and its
 * shards; a config.json in the folder is read too. All headers are read and checked here, tensors are mapped when fetched.
 * NULL on failure: the message names the file and the tensor or field. */
mk_checkpoint *mk_checkpoint_open(const char *path, mk_status *st);
void mk_checkpoint_close(mk_checkpoint *c); /* NULL is fine */

/* Borrowed; valid until the checkpoint is closed. Not thread-safe. */
const mk_source *mk_checkpoint_source(mk_checkpoint *c);
const char *mk_checkpoint_path(const mk_checkpoint *c);
const char *mk_checkpoint_config(const mk_checkpoint *c);        /* config.json as text; NULL if there is none */
const json_t *mk_checkpoint_config_json(const mk_checkpoint *c); /* the same, parsed; borrowed */
int mk_checkpoint_count(const mk_checkpoint *c);
const char *mk_checkpoint_name(const mk_checkpoint *c, int i); /* of tensor i, in the order of names */
uint64_t mk_checkpoint_bytes(const mk_checkpoint *c);          /* of all tensors as stored */

/* ---- a whole model ---- */

typedef enum mk_layout { MK_LAYOUT_ORIGINAL, MK_LAYOUT_DIFFUSERS } mk_layout;

/* What moonkiln.json in the model's folder says, else what the authors recommend. Index 0: high noise, or the only expert; 1: low
 * noise. */
typedef struct mk_model_defaults {
  const char *name; /* "T2V-A14B" */
  int64_t steps, width, height, frames, fps;
  double shift, guidance[2];
  const char *grid, *negative; /* NULL: the original one */
} mk_model_defaults;

mk_model_defaults mk_usual_defaults(bool experts); /* the authors', with two experts or one */

typedef struct mk_model {
  mk_layout layout;
  mk_checkpoint *dit[2]; /* 0: high noise or the only one; 1: low noise, NULL if there is one expert */
  mk_checkpoint *text_encoder, *vae;
  const char *tokenizer;  /* path of spiece.model */
  double boundary;        /* fraction of the 1000 training steps from which on expert 0 works; 0 with one expert */
  double scheduler_shift; /* flow_shift of scheduler_config.json, for Diffusers' grid; 0 if there is none */
  mk_model_defaults defaults;
  struct mk_model_files *files; /* internal */
} mk_model;

/* Finds and opens every part of a text-to-video model in `folder`. On failure the message lists all parts that are missing.
 * NULL on failure; close with mk_model_close. */
mk_model *mk_model_open(const char *folder, mk_status *st);
void mk_model_close(mk_model *m); /* NULL is fine */

#endif
