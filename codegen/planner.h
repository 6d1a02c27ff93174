/* Between the files that turn grouped units into a plan: plan.c (order of work), schedule.c, memory.c, select*.c, precedent.c,
 * site.c and realise.c. */
#ifndef MK_CODEGEN_PLANNER_H
#define MK_CODEGEN_PLANNER_H

#include "codegen/pattern.h"
#include "codegen/sidecar.h"

/* MK_MAX_PRECEDENTS: beside the cheapest. */
enum { MK_MAX_SITE_READS = 16, MK_MAX_REALISED = 4, MK_MAX_PRECEDENTS = 4 };

typedef struct mk_site { /* a normalising row group and the matmul right behind it, which may be realised otherwise */
  mk_normed norm;
  bool in_memory;       /* x can be read from memory */
  bool copies;          /* but not as the matmul's operand: folded, it is copied */
  bool folds;           /* there is room for the folded weight, or none is needed */
  bool weight_in_value; /* room in h's buffer, as h is not made then */
  /* A buffer for what the realisations hand from launch to launch, and where in it, in bytes; -1: not there. modulation: scale
   * and shift of the columns, where these take too long to be evaluated by each reader. */
  int workspace;
  int64_t mean, scale, weight, colsum, shift, modulation;
  int nreads; /* buffers that only other realisations of the matmul read */
  int reads[MK_MAX_SITE_READS];
} mk_site;

typedef struct mk_work { /* one group of a program, on its way to a plan group */
  int cluster;
  const mk_body *body;
  int workspace;                  /* of the library's realisations: a buffer of the program's own, or -1 */
  const struct mk_lt_match *lt;   /* how the library can do it, or NULL */
  const mk_residual *residual;    /* what it may add its product to, all in one; or NULL */
  const mk_site *site;            /* that it is half of, or NULL */
  const struct mk_hook *prologue; /* what makes the root's left operand, or NULL: memory does */
  const char *realises;           /* how the labels of its candidates begin, or NULL */
} mk_work;

typedef struct mk_draft { /* one program */
  const char *name;
  mk_rate rate;
  mk_grouping *gr;
  int nwork;
  mk_work *work; /* in order of execution */
  int nbuffers;  /* the flow's, then its own */
  int nown, own_cap;
  int64_t *own_bytes;
  mk_ref *ref; /* per root buffer; offset -1: has no place in this program */
} mk_draft;

typedef struct mk_hook { /* a body, and the program whose buffers it names */
  const mk_draft *d;
  const mk_body *body;
} mk_hook;

typedef struct mk_memo { /* text -> kernel */
  uint64_t hash;
  const char *key;
  int kernel;
  mk_fields fields;
  struct mk_memo *next;
} mk_memo;

enum { MK_MEMO_SLOTS = 1024 };

typedef struct mk_planner {
  const mk_graph *g;
  const mk_plan_options *options;
  mk_target target;
  mk_arena *arena; /* the plan's: what it keeps */
  mk_arena *temp;
  mk_plan *plan;
  mk_flow *flow;
  mk_sidecars *sidecars;
  const char *prelude, *row_code;
  mk_ref *fixed; /* per buffer, roots outside SCRATCH; offset -1: none */
  int ndrafts;
  mk_draft *drafts;
  int kernels_cap, groups_cap;
  mk_memo *memo[MK_MEMO_SLOTS];
  int nknown; /* signatures that the group at hand may have and that there are precedents of */
  uint64_t known[2];
  bool *turned; /* of the program at hand, per node: a convolution that does not do as the cost model says; NULL: none */
  mk_status *st;
} mk_planner;

mk_target mk_target_of(const mk_plan_options *o); /* plan.c */

/* ---- schedule.c: grouping and order of execution */
void mk_schedule(mk_planner *p, mk_draft *d);

/* ---- memory.c */
void mk_place_fixed(mk_planner *p);                /* LOAD, PROMPT, STATE, IO; bindings and constants */
void mk_place_scratch(mk_planner *p, mk_draft *d); /* fills d->ref */
mk_ref mk_locate(const mk_planner *p, const mk_draft *d, int buffer, int64_t offset, mk_dtype dtype);
/* The buffers that a piece of work reads and writes, roots only; returns how many (at most max). */
int mk_work_buffers(const mk_draft *d, const mk_work *w, int *out, int max);
/* A buffer of the program's own, alive in the groups that mk_work_buffers names it for. */
int mk_new_workspace(mk_planner *p, mk_draft *d, int64_t bytes);

/* ---- site.c */
/* Pairs of neighbours in the order of execution that have other realisations: sets work[].site. */
void mk_find_sites(mk_planner *p, mk_draft *d);

/* ---- realise.c */
/* The other realisations of a site; w: its matmul. Each covers the group before, and is named so in its label. At most
 * MK_MAX_REALISED, and twice MK_MAX_PRECEDENTS. */
int mk_site_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out);

/* The library's matmul that adds its product to the residual: adds at most one candidate. */
int mk_residual_candidate(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out);
/* Bytes of workspace for that. */
int64_t mk_residual_workspace(const mk_draft *d, const mk_residual *r);

/* ---- select.c: candidates */
void mk_select(mk_planner *p, const mk_draft *d, const mk_work *w, mk_group *out);

/* ---- precedent.c */
/* The precedents of a piece of work become those of the group at hand. */
void mk_look_up(mk_planner *p, const mk_draft *d, const mk_work *w);
/* Whether a candidate of the group at hand has one, and the cost model does not put it far behind the cheapest. */
bool mk_has_precedent(const mk_planner *p, const char *label, double cost, double cheapest);
/* Turns the decision for convolutions that are in a group without precedent; back: takes it back where that did not help. True
 * when there are any: the draft must then be scheduled again. Requires bodies. */
bool mk_retake_norms(mk_planner *p, const mk_draft *d, bool back);

/* ---- touch.c */
/* Of the group; with_before: some candidates cover the group before. */
uint64_t mk_signature(mk_planner *p, const mk_draft *d, const mk_work *w, bool with_before);
/* Fills extents and signature; with_before: some candidates cover the group before. */
void mk_touch(mk_planner *p, const mk_draft *d, const mk_work *w, bool with_before, mk_group *out);

/* ---- select_row.c */
/* Adds candidates that are one row kernel for this body; returns how many were added. */
int mk_row_candidates(mk_planner *p, const mk_draft *d, const mk_body *b, mk_candidate *out, int max);
/* The launch of the best shape. */
bool mk_row_launch(mk_planner *p, const mk_draft *d, const mk_body *b, const mk_row_shape *shape, mk_launch *out);
double mk_row_cost(const mk_planner *p, const mk_body *b);
/* Looks the key up; on a miss, *out is a new entry whose kernel is -1. */
bool mk_memo_find(mk_planner *p, const char *key, mk_memo **out);
/* Adds a kernel whose text is prelude, `before` and body; the name is prefix and a hash of what is not the prelude. */
int mk_add_kernel(mk_planner *p, const char *prefix, const char *defines, const char *text, int min_arch, bool arch_specific);
/* The fields of an epilogue's or a row program's body, or those of the prologue's. */
void mk_bind_fields(const mk_planner *p, const mk_draft *d, const mk_body *b, bool prologue, const mk_fields *fields,
                    mk_arg *args);

/* ---- plan_edited.c */
/* Takes the trial's edited kernels into a finished plan. */
void mk_take_edited(mk_planner *p);

/* ---- select_root.c: templates and the library */
/* body: what is fused behind it, or NULL. */
void mk_root_problem(const mk_flow *f, int root, const mk_body *body, mk_problem *out);
int mk_template_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out, int max);
/* Adds at most MK_MAX_PRECEDENTS that have one, but those that mk_template_candidates adds with that max. */
int mk_precedent_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out, int but);
/* Whether the library can do the group, and with what workspace. */
void mk_lt_plan(mk_planner *p, mk_draft *d, mk_work *w);
int mk_lt_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out, int max);
double mk_root_flop(const mk_grouping *gr, const mk_cluster *c);
/* For errors: "matmul f32 [75600, 5120] x [5120, 5120] (wan_dit.lua:42)". */
const char *mk_root_text(mk_planner *p, const mk_grouping *gr, const mk_cluster *c);

#endif
