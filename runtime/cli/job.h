/* A program ready to run: what bench, profile, tables of variants and sweeps have in common. */
#ifndef MK_CLI_JOB_H
#define MK_CLI_JOB_H

#include "runtime/cli/measure.h"
#include "runtime/cli/subject.h"
#include "runtime/gpu/tuning.h"
#include "runtime/model/tensor_file.h"

typedef struct mk_job {
  mk_arena arena;
  mk_subject subject;
  mk_tensor_file *inputs; /* NULL: all are made up */
  mk_gpu_device *device;  /* NULL: for compiling only */
  bool owns_device;
  mk_tuning tuning;
  mk_plan *plan;
  const mk_program *entry;
} mk_job;

/* Graph, GPU, plan and entry, as asked for. False with the status set; close either way. */
bool mk_job_open(mk_job *j, const mk_measure *m, mk_status *st);
/* Gives a session of either backend its weights and inputs, and runs what comes before the entry. Values that are not given are
 * the same in every session of the job. */
bool mk_job_feed(const mk_job *j, mk_session *s, mk_status *st);
void mk_job_close(mk_job *j);

/* Matmuls, attention and convolutions are held against the bf16 rate, but for library matmuls in f32, whose type the plan tells.
 */
mk_arithmetic mk_job_arithmetic(const mk_group *g);

#endif
