/* Sidecars: the Lua files beside the templates, asked what they can do for a problem. See templates/README.md. */
#ifndef MK_CODEGEN_SIDECAR_H
#define MK_CODEGEN_SIDECAR_H

#include "codegen/emit.h"

enum { MK_MAX_FACTS = 48, MK_MAX_TMAPS = 4, MK_MAX_CANDIDATES = 6, MK_MAX_TUNABLES = 12 };

typedef enum mk_fact_kind { MK_FACT_INT, MK_FACT_FLOAT, MK_FACT_TEXT, MK_FACT_BOOL } mk_fact_kind;
typedef struct mk_fact {
  const char *name;
  mk_fact_kind kind;
  int64_t i;
  double f;
  const char *s;
} mk_fact;

typedef struct mk_problem {
  const char *op; /* "matmul", "conv", "attention" */
  int nfacts;
  mk_fact facts[MK_MAX_FACTS];
  bool row_epilogue;
  bool prologue; /* the left operand comes through the hook */
  int nout;
  mk_dtype out[16]; /* what the epilogue stores */
} mk_problem;

void mk_problem_int(mk_problem *p, const char *name, int64_t value);
void mk_problem_float(mk_problem *p, const char *name, double value);
void mk_problem_text(mk_problem *p, const char *name, const char *value);
void mk_problem_bool(mk_problem *p, const char *name, bool value);
const mk_fact *mk_problem_fact(const mk_problem *p, const char *name); /* NULL: none */
void mk_problem_key(const mk_problem *p, mk_text *out);

typedef struct mk_target { /* what sidecars know of the machine */
  int arch, smem_limit, sms;
  double tensor_tflops, simt_tflops, copy_tbs;
} mk_target;

typedef struct mk_choice { /* a template with one choice of tunables, for one problem */
  struct mk_sidecar *of;
  const char *name;                    /* of the template */
  const char *shown;                   /* in messages: the name, or the path of a sidecar of the user's */
  const char *label;                   /* "matmul_mma stages=4 tile_m=128 ..." */
  unsigned char pick[MK_MAX_TUNABLES]; /* the tunables' values, by place */
  bool own;                            /* from a folder of the user's */
  double cost;
  /* The rest is there once it is settled. */
  const char *constants; /* CUDA text; NULL: not settled */
  const char *code;      /* the files it uses and the template itself */
  int nfields;
  const mk_field *fields; /* the template's own; field.name is an operand's or a fact's */
  uint32_t grid[3], block, smem, cluster;
  int ntmaps;
  struct mk_choice_tmap {
    const char *field, *operand;
    mk_tmap map; /* dtype is the problem's */
  } tmaps[MK_MAX_TMAPS];
  int min_arch;
  bool arch_specific;
  bool fetches; /* takes the epilogue in pieces */
} mk_choice;

typedef struct mk_sidecars mk_sidecars;

/* Reads every NAME.lua that has a NAME.cu in the folder and in the trial's folders, which win. `trial` is borrowed until close.
 * NULL with the status set on failure. */
mk_sidecars *mk_sidecars_open(const char *folder, const mk_trial *trial, const mk_target *target, mk_status *st);
void mk_sidecars_close(mk_sidecars *s);
/* The values of a tunable, over all templates, as "64, 128" for people; NULL: no template has it. Owned by s. `value`: is it one
 * of them. */
const char *mk_sidecars_tunable(mk_sidecars *s, const char *name, int64_t value, bool *found);
/* A file of the first folder; owned by s. NULL with the status set if it cannot be read. */
const char *mk_sidecars_text(mk_sidecars *s, const char *file, mk_status *st);
/* Valid choices, cheapest first, at most max; owned by s. Of one template there are a few, of all MK_MAX_CANDIDATES, the user's
 * before others. -1: a sidecar is wrong. */
int mk_sidecars_choose(mk_sidecars *s, const mk_problem *p, mk_choice **out, int max, mk_status *st);
/* The valid choices that are not among those few, in no order. */
int mk_sidecars_rest(mk_sidecars *s, const mk_problem *p, mk_choice **out, mk_status *st);
/* Asks for what launching a choice for its problem takes, once: of most choices only the cost is ever wanted. */
bool mk_sidecars_settle(mk_sidecars *s, const mk_problem *p, mk_choice *choice, mk_status *st);

#endif
