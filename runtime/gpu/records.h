/* Tuning records: what was measured on a card, as a text for people and programs. One file for each environment (card, driver
 * generation, NVRTC), one line for each group and size of problem. Knows neither plans nor the GPU.
 *
 *   environment gpu=NVIDIA H200 | sms=132 | driver=13 | nvrtc=13.0
 *   SIGNATURE FLOP BYTES DATE | NAME | STATE MS ERROR CODE LABEL | STATE MS ERROR CODE LABEL ...
 *
 * FLOP and BYTES are the size class: base-2 logarithms in quarters. The first candidate is the chosen one. */
#ifndef MK_GPU_RECORDS_H
#define MK_GPU_RECORDS_H

#include <limits.h>

#include "runtime/base/arena.h"
#include "runtime/base/status.h"
#include "runtime/base/text.h"
#include "runtime/gpu/contest.h"

typedef struct mk_tune_environment {
  char gpu[128];
  int sms, driver; /* driver: CUDA's major version */
  int nvrtc_major, nvrtc_minor;
} mk_tune_environment;

typedef struct mk_record_entry { /* a candidate */
  mk_runner_state state;
  double ms, error; /* negative: not measured */
  uint64_t code;    /* of its kernels' sources */
  const char *label;
} mk_record_entry;

typedef struct mk_record {
  uint64_t signature;
  int flop, bytes;  /* quarters of base-2 logarithms */
  const char *date; /* "2026-11-22T10:11:12Z": sorts as text */
  const char *name; /* of the first such group, for people */
  int count;        /* at least 1, the chosen one first */
  const mk_record_entry *entries;
} mk_record;

typedef struct mk_records {
  mk_arena arena;
  mk_tune_environment environment;
  int count, cap;
  mk_record *items; /* by signature and size */
  int damaged;      /* lines that were left out when reading */
} mk_records;       /* zero-initialise */

void mk_records_free(mk_records *r);

/* Else it says what was used without. */
bool mk_record_is_measured(const mk_record *r);

/* Of now. */
void mk_record_date(char out[32]);

/* The size class of a number: log2 in quarters, rounded; 0 for anything below 1. */
int mk_record_class(double amount);

/* Takes a copy of the record in; of two for one signature and size the measured one stays, else the newer, of two of one second
 * the greater text, so that the order of merging does not matter. */
void mk_records_add(mk_records *r, const mk_record *record);
void mk_records_merge(mk_records *into, const mk_records *from);

/* The records of a signature, which stand together; *count may become 0. */
const mk_record *mk_records_of(const mk_records *r, uint64_t signature, int *count);

/* How far the record's size is from this one. */
int mk_record_distance(const mk_record *r, int flop, int bytes);

/* The record of this signature with the nearest size among those that accept says yes to. NULL: none. */
typedef bool (*mk_record_accept_fn)(void *user, const mk_record *r);
const mk_record *mk_records_nearest(const mk_records *r, uint64_t signature, int flop, int bytes, mk_record_accept_fn accept,
                                    void *user);

/* Text and back. Lines that cannot be understood are counted and left out; false with the status set when the whole is not ours:
 * no such file format, or another version of it. */
void mk_records_print(const mk_records *r, mk_text *out);
bool mk_records_parse(mk_records *r, const char *text, mk_status *st);

/* "nvidia-h200-132sm-driver13-nvrtc13.0.tune" into out. */
void mk_tune_file_name(const mk_tune_environment *e, char out[NAME_MAX + 1]);

typedef enum mk_records_found { MK_RECORDS_NONE, MK_RECORDS_READ, MK_RECORDS_FOREIGN } mk_records_found;

/* Reads the environment's file of the folder into r, which it empties first. FOREIGN: there is one and it is not ours to use or
 * to replace: of another environment or version, or unreadable; the status says why. */
mk_records_found mk_records_read(const char *folder, const mk_tune_environment *e, mk_records *r, mk_status *st);

/* Reads every file of records in the folder, by name. Files that are none of ours are passed over with the status of why. */
typedef void (*mk_records_visit_fn)(void *user, const char *path, const mk_records *r, const mk_status *why);
void mk_records_visit(const char *folder, mk_records_visit_fn visit, void *user);

/* Merges r into the environment's file of the folder, under a lock, by a temporary file and a rename: other processes see all of
 * it or nothing, and lose nothing. Makes the folder. False with the status set when it stays as it was. */
bool mk_records_write(const char *folder, const mk_records *r, mk_status *st);

#endif
