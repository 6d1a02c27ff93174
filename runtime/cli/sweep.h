/* One program over the values of tunables and parameters. */
#ifndef MK_CLI_SWEEP_H
#define MK_CLI_SWEEP_H

#include "runtime/cli/measure.h"

typedef struct mk_sweep_request {
  mk_text_list axes;      /* "tile_m=64,128", "tokens=1024..131072" (doubling), "policy=f32,bf16" */
  const char *arch;       /* without a GPU */
  const char *csv, *html; /* files; csv NULL: standard output */
} mk_sweep_request;

enum { MK_SWEEP_AXES = 6, MK_SWEEP_VALUES = 64, MK_SWEEP_POINTS = 1024 };

typedef struct mk_axis {
  char name[64];
  bool tunable; /* else a parameter of the script */
  bool numeric; /* all values are numbers */
  int n;
  const char *values[MK_SWEEP_VALUES]; /* owned by the arena */
} mk_axis;

typedef struct mk_point {
  int at[MK_SWEEP_AXES]; /* index of the value on each axis */
  double ms;             /* the program as a whole; < 0: not timed */
  double tflops, gbs, roofline;
  const char *group, *candidate; /* of the group that takes longest, or computes most */
  int registers, smem_bytes, spill_bytes;
  const char *message; /* why there are no numbers; NULL: all is well */
} mk_point;

typedef struct mk_sweep_result {
  mk_arena arena;
  const char *graph, *target;
  bool timed;
  int naxes, npoints;
  mk_axis axes[MK_SWEEP_AXES];
  mk_point *points;
} mk_sweep_result;

/* Measures every combination and writes it out. A combination that cannot be run is a line with a message. */
void mk_sweep(const mk_measure *m, const mk_sweep_request *r, mk_status *st);

/* "1,2,5" or "1024..131072" after "NAME=". False with the status set. */
bool mk_sweep_parse(const char *text, mk_axis *out, mk_arena *arena, mk_status *st);
void mk_sweep_csv(const mk_sweep_result *r, mk_text *out);
void mk_sweep_page(const mk_sweep_result *r, mk_text *out, mk_status *st);

#endif
