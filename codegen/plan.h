/* The plan: the only hand-over between codegen and runtime. A flat list of launches over buffers at fixed offsets, with the
 * CUDA source of every generated kernel. Plain data, no CUDA type; printable; owned by its arena. */
#ifndef MK_CODEGEN_PLAN_H
#define MK_CODEGEN_PLAN_H

#include "codegen/ir.h"

/* Device memory is a few arenas per session; every buffer is (space, byte offset), offsets multiples of 256. */
typedef enum mk_space {
  MK_SPACE_LOAD,    /* weights as prepared by the load program: kept for the session's life */
  MK_SPACE_PROMPT,  /* values of the prompt program that steps read */
  MK_SPACE_STATE,   /* state kept between steps */
  MK_SPACE_IO,      /* inputs and outputs above load rate: the host writes and reads these */
  MK_SPACE_SCRATCH, /* intermediates; shared by all programs and by all sessions of a device */
  MK_SPACE_COUNT
} mk_space;

typedef struct mk_ref {
  mk_space space;
  int64_t offset;
} mk_ref;

typedef struct mk_binding { /* a named tensor at the border: dense row-major */
  const char *name;
  mk_dtype dtype;
  int rank;
  int64_t dims[MK_MAX_RANK];
  int64_t bytes;
  mk_ref ref; /* weights: valid from their upload step on */
} mk_binding;

typedef enum mk_arg_kind { MK_ARG_PTR, MK_ARG_I32, MK_ARG_I64, MK_ARG_F32, MK_ARG_TMAP } mk_arg_kind;

typedef struct mk_tmap { /* a TMA tensor map; innermost dimension first, as cuTensorMapEncodeTiled takes it */
  mk_dtype dtype;
  int rank;
  uint64_t dims[5];
  uint64_t strides[4]; /* bytes, of dims 1.. */
  uint32_t box[5];
  int swizzle;      /* 0, 32, 64 or 128 bytes */
  int l2_promotion; /* 0, 64, 128, 256 */
} mk_tmap;

typedef struct mk_arg { /* one field of the kernel's parameter struct */
  mk_arg_kind kind;
  uint32_t offset; /* in the struct */
  mk_ref ref;      /* PTR, TMAP (base address) */
  int64_t i;       /* I32, I64 */
  float f;         /* F32 */
  const mk_tmap *tmap;
} mk_arg;

typedef struct mk_kernel {
  const char *name;   /* the extern "C" symbol; unique in the plan; equal problems share one kernel */
  const char *source; /* complete CUDA text: constants, fused code, template */
  int min_arch;       /* 80, 90 ... ; for arch-specific features see `arch_specific` */
  bool arch_specific; /* needs the "a" target: sm_90a, sm_100a */
  uint64_t hash;      /* of the source */
} mk_kernel;

typedef enum mk_lt_epilogue { MK_LT_NONE, MK_LT_BIAS, MK_LT_GELU, MK_LT_GELU_BIAS } mk_lt_epilogue;

typedef struct mk_lt { /* d[m,n] = epilogue(a[m,k] · b[n,k]^T + bias[n] + beta c[m,n]); row-major, leading dims in elements */
  int64_t m, n, k, lda, ldb, ldc, ldd;
  mk_dtype ab_type, c_type, d_type, bias_type;
  bool tf32;
  mk_lt_epilogue epilogue;
  float beta; /* 0: c unused */
  mk_ref a, b, c, d, bias;
} mk_lt;

typedef enum mk_launch_kind { MK_LAUNCH_KERNEL, MK_LAUNCH_LT, MK_LAUNCH_COPY, MK_LAUNCH_ZERO } mk_launch_kind;

typedef struct mk_launch {
  mk_launch_kind kind;
  /* KERNEL: one by-value parameter struct of param_bytes, filled from args */
  int kernel;                                   /* index in plan->kernels */
  uint32_t grid[3], block[3], cluster[3], smem; /* cluster 0 or 1: none */
  uint32_t param_bytes;
  int nargs;
  const mk_arg *args;
  /* LT */
  const mk_lt *lt;
  /* COPY: dst <- src; ZERO: dst */
  mk_ref dst, src;
  int64_t bytes;
} mk_launch;

typedef struct mk_candidate { /* one realisation of a group */
  const char *label;          /* "matmul_mma 128x128x32 s4", "cublaslt" */
  int nlaunches;
  const mk_launch *launches;
  double cost;    /* the cost model's seconds on the target */
  bool own;       /* from the user's templates */
  int covers;     /* 1: does the work of the group before too, which does not run while this is chosen; so it competes with the
                   * other candidates' time and that group's */
  bool rounds;    /* rounds other values than the graph's casts name, so that results differ by about as much as casts lose */
  bool precedent; /* was chosen before, maybe at another size */
} mk_candidate;

typedef struct mk_extent { /* a buffer that a group reads or writes, some or all of it; the same for every candidate; where
                            * some cover the group before, of both groups */
  mk_ref ref;
  mk_dtype dtype;
  int64_t bytes;
  bool read, written;
  bool spoilt;     /* holds something else in between: to be put back before a run, not looked at after it */
  int32_t integer; /* i32 that is read: a value that is valid everywhere in it */
} mk_extent;

typedef struct mk_group { /* a fused piece of the graph, with every realisation that fits, cheapest first */
  const char *name;       /* "blocks.0.norm1: row mean sub mul ..." for people */
  const char *kind;       /* "row", "matmul", "attention", "conv", "copy" */
  int ncandidates;
  const mk_candidate *candidates;
  int chosen;
  const char *algorithm; /* of the matmul library, by name, for the chosen one; NULL: the library's own choice */
  double flop, bytes;    /* arithmetic and least memory traffic */
  /* Of groups that run more than once: */
  uint64_t signature; /* of the operation: the same in every plan, and for every length */
  int nextents;
  const mk_extent *extents; /* workspaces are not among them */
} mk_group;

typedef enum mk_step_kind { MK_STEP_UPLOAD, MK_STEP_GROUP } mk_step_kind;

typedef struct mk_step {
  mk_step_kind kind;
  int index; /* UPLOAD: plan->weights; GROUP: plan->groups */
} mk_step;

typedef struct mk_program {
  const char *name; /* "load", "prompt", or an entry: "step", "first", "next" */
  mk_rate rate;
  int nsteps;
  const mk_step *steps;
} mk_program;

typedef struct mk_plan {
  mk_arena arena;
  const char *name;
  int arch; /* what it was made for: 80, 89, 90, 100, 120 */
  int nkernels;
  mk_kernel *kernels;
  int ngroups;
  mk_group *groups;
  int nprograms;
  mk_program *programs; /* load, prompt, then the entries */
  int nweights, ninputs, noutputs, nstates;
  mk_binding *weights, *inputs, *outputs, *states;
  int64_t space_bytes[MK_SPACE_COUNT];
  /* Constants: copied to the LOAD space before the load program runs. */
  int nconsts;
  struct mk_const_data {
    mk_ref ref;
    const void *data;
    int64_t bytes;
  } * consts;
} mk_plan;

typedef struct mk_pin { /* a tunable held at one value */
  const char *name;
  int64_t value;
} mk_pin;

typedef struct mk_trial { /* what a person who tries kernels puts in the place of the usual; zero: nothing */
  const char *templates;  /* folders of further templates, separated by ':'; the first that has a name wins */
  int npins;              /* in groups where a template has the tunable, candidates without the pinned value are left out */
  const mk_pin *pins;
  const char *edited; /* folder of NAME.cu that take the place of the emitted kernels of those names, see plan_edited.c */
} mk_trial;

typedef struct mk_precedents { /* what was chosen for operations before, maybe at other sizes; zero: nothing */
  /* Whether a group of this signature has had this candidate, or, label NULL, any. Must be safe to call from several threads. */
  bool (*named)(const void *user, uint64_t signature, const char *label);
  const void *user;
} mk_precedents;

/* Whether what has this cost should not be taken for what was chosen at another size. Seconds. */
bool mk_is_far_behind(double cost, double cheapest);

typedef struct mk_plan_options {
  int arch;              /* 80, 86, 89, 90, 100, 120 */
  int smem_limit;        /* bytes of shared memory a block may use; 0: the architecture's */
  int sms;               /* 0: the architecture's usual count; only steers ranking */
  const char *templates; /* folder of .cu + .lua sidecars */
  bool cublaslt;         /* may use library matmuls */
  mk_trial trial;
  mk_precedents precedents;
} mk_plan_options;

/* Groups, lays out, selects and emits. The graph must be optimized and stays the caller's. NULL with the status set. */
mk_plan *mk_plan_build(const mk_graph *g, const mk_plan_options *options, mk_status *st);
void mk_plan_free(mk_plan *p);
/* Some candidate covers the group before, the program's previous step: the others' time is compared with that group's added. */
bool mk_group_may_cover(const mk_group *g);

/* Stages for people and goldens: groups with their nodes, launches with buffers, sources. Deterministic. */
void mk_groups_print(const mk_graph *g, const mk_plan_options *options, mk_text *out, mk_status *st);
void mk_plan_print(const mk_plan *p, mk_text *out);

#endif
