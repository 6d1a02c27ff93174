/* Running a program on the GPU to see where its time goes. */
#ifndef MK_CLI_MEASURE_H
#define MK_CLI_MEASURE_H

#include "runtime/cli/load_graph.h"
#include "runtime/cli/profile.h"

typedef struct mk_measure {   /* as the command line gives it */
  const char *what;           /* a script, a model's folder, or a published size's name */
  mk_text_list sets, weights; /* of a script */
  const char *entry;          /* of a script; NULL: the first */
  const char *inputs;         /* safetensors file with inputs and states by name; NULL: all are made up */
  mk_size size;               /* of a model's video; 0: 1280x720 */
  int64_t frames;             /* of a model's video; 0: 81 */
  const char *policy;         /* of a model; NULL: exact */
  int64_t seed;               /* of made-up weights; 0: the checkpoint's values */
  int64_t iterations;         /* timed runs, of which the median counts */
  bool no_tune;               /* the cost model's choices, the library's first suggestions */
  bool wants_ceilings;        /* measure the card first */
  mk_trial_request trial;
  int npins;
  const mk_pin *pins;           /* borrowed */
  struct mk_gpu_device *device; /* borrowed; NULL: the first GPU is opened */
  int arch;                     /* with no device: what to compile for; 0: open one */
  bool compile_only;            /* of variants: nothing is run, though there is a device */
} mk_measure;

/* The options of the command line that fill m; returns how many there are. */
enum { MK_MEASURE_OPTIONS = 12 };
int mk_measure_options(mk_measure *m, mk_option out[MK_MEASURE_OPTIONS]);

/* Builds, loads and times the program: for a model, one guided diffusion step. Free p either way. */
bool mk_profile_measure(mk_profile *p, const mk_measure *m, mk_status *st);

#endif
