/* The time budget of a program: what was measured, how far each part is from the card's limits, and how that is shown. Shared by
 * `bench` and `profile`. */
#ifndef MK_CLI_PROFILE_H
#define MK_CLI_PROFILE_H

#include <jansson.h>

#include "runtime/base/arena.h"
#include "runtime/base/text.h"
#include "runtime/gpu/ceilings.h"
#include "runtime/gpu/timing.h"

typedef enum mk_arithmetic { MK_ARITHMETIC_BF16, MK_ARITHMETIC_TF32, MK_ARITHMETIC_F32, MK_ARITHMETIC_COUNT } mk_arithmetic;
extern const char *const mk_arithmetic_names[MK_ARITHMETIC_COUNT];

typedef struct mk_profile_row { /* groups that do the same work in the same way; or a sum of rows */
  const char *kind;             /* "attention", "matmul", "conv", "row", "copy" */
  const char *name;             /* of the group; numbers that differ are '*' */
  const char *candidate;
  mk_arithmetic arithmetic; /* whose rate limits it */
  int calls;
  double ms, flop, bytes;    /* of all calls; bytes: the least traffic */
  int registers, smem_bytes; /* of its largest kernel; 0: none of ours */
} mk_profile_row;

typedef struct mk_profile {
  mk_arena arena; /* owns all texts and rows */
  const char *gpu, *graph, *entry;
  const char *subject; /* what was run, for people */
  int sms;
  double graph_ms; /* the whole program as it normally runs */
  double steps_ms; /* step by step, launch gaps included */
  mk_gpu_peaks peaks;
  mk_gpu_ceilings ceilings; /* zero: not measured */
  mk_profile_row *rows;     /* longest first */
  int nrows, cap;
} mk_profile;

void mk_profile_free(mk_profile *p);

/* Adds a group's time to the row of its like, or opens one. Texts are copied. */
void mk_profile_add(mk_profile *p, const mk_profile_row *group);
void mk_profile_sort(mk_profile *p);
double mk_profile_sum_ms(const mk_profile *p);

/* Sums by kind into out, in a fixed order, those without a row left out; returns how many. */
enum { MK_PROFILE_KINDS = 6 };
int mk_profile_by_kind(const mk_profile *p, mk_profile_row out[MK_PROFILE_KINDS]);
/* Index of a kind in that order, and its name there; the last one is for all others. */
int mk_profile_kind_index(const char *kind);
const char *mk_profile_kind_name(const char *kind);
/* What needs no tensor cores: rows, copies and the like. */
double mk_profile_outside_ms(const mk_profile *p);

typedef struct mk_limit { /* the time that a row cannot beat, and what sets it */
  double ms;
  bool by_memory;
} mk_limit;

/* Against the data sheet. */
mk_limit mk_profile_sheet_limit(const mk_profile *p, const mk_profile_row *row);
/* Against what was measured on the card; zero when nothing was. Only bf16 matmuls are measured: other arithmetic is taken to
 * reach the same part of its data-sheet rate. */
mk_limit mk_profile_limit(const mk_profile *p, const mk_profile_row *row);
typedef struct mk_profile_limits {
  double measured_ms, sheet_ms;
} mk_profile_limits;
/* Both, summed over the rows of a kind (NULL: all). */
mk_profile_limits mk_profile_limit_sums(const mk_profile *p, const char *kind);
double mk_profile_measured_tflops(const mk_profile *p, mk_arithmetic a);

/* amount in ms, as multiples of unit a second; 0 when no time was measured. */
double mk_profile_rate(double amount, double ms, double unit);

/* ---- as JSON: `groups` and the times have been there since `bench`; the rest is optional for readers of old files */
json_t *mk_profile_to_json(const mk_profile *p);
/* Reads what mk_profile_to_json wrote. False with the status set: the message names file and field. Free p either way. */
bool mk_profile_read(mk_profile *p, const char *path, mk_status *st);

/* ---- for people */
void mk_profile_table(const mk_profile *p, mk_text *out);
void mk_profile_print(const mk_profile *p, bool json); /* the table, or JSON, to standard output */
/* One page that needs nothing else. */
void mk_profile_page(const mk_profile *p, mk_text *out, mk_status *st);

#endif
