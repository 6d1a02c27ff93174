/* What is known of a card from earlier tunings, and its use for a plan: the user's records, and those that came with the program
 * where they are of a nearer size. */
#ifndef MK_GPU_TUNING_H
#define MK_GPU_TUNING_H

#include "codegen/plan.h"
#include "runtime/gpu/device.h"
#include "runtime/gpu/records.h"

typedef struct mk_tuning {
  mk_records user, shipped;
  char folder[PATH_MAX]; /* where the user's records are written; "" when they cannot be */
} mk_tuning;             /* zero-initialise */

/* Reads the records of the device's environment. What cannot be used costs a message at most. */
void mk_tuning_open(mk_tuning *t, const mk_gpu_device *d);
void mk_tuning_close(mk_tuning *t);

/* What records chose, for making a plan whose groups have those candidates. t is borrowed. */
mk_precedents mk_tuning_precedents(const mk_tuning *t);

/* Sets the choice of every group that a record tells something about. */
void mk_tuning_apply(const mk_tuning *t, mk_plan *plan);

typedef enum mk_known {
  MK_KNOWN_NOT,  /* nothing was measured, or code has changed or come since */
  MK_KNOWN_NEAR, /* another size was */
  MK_KNOWN_EXACT
} mk_known;
mk_known mk_tuning_knows(const mk_tuning *t, const mk_plan *plan, const mk_group *g);

/* Notes what the group uses, where no record tells it. */
void mk_tuning_use(const mk_tuning *t, const mk_plan *plan, const mk_group *g, mk_records *out);

/* Adds what was measured or used, here and (unless t was never opened) in the user's file. False with the status set when it
 * could not be written. */
bool mk_tuning_keep(mk_tuning *t, const mk_records *fresh, mk_status *st);

/* Whether there is something to choose among in the group, and it is worth it. */
bool mk_tuning_matters(const mk_group *g);

/* Hash of a candidate's kernels as sources. */
uint64_t mk_tuning_code(const mk_plan *plan, const mk_candidate *c);

/* The group's candidate that the entry is of, with the code that was measured, or -1. */
int mk_tuning_candidate(const mk_plan *plan, const mk_group *g, const mk_record_entry *e);

/* "cublaslt" and an algorithm's name, or "" for none, to a label and back; parts of the label point into it. */
void mk_tuning_label(const char *label, const char *algorithm, mk_text *out);
void mk_tuning_split(const char *label, int *length, const char **algorithm);

#endif
