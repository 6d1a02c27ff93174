/* Device memory: blocks, and the budget that is checked before a session takes any. */
#ifndef MK_GPU_MEMORY_H
#define MK_GPU_MEMORY_H

#include "codegen/plan.h"
#include "runtime/gpu/device.h"

/* What sessions take of a device; see mk_gpu_budget_check. */
typedef struct mk_gpu_budget {
  int64_t weights, prompt, state, io; /* per session, summed over sessions */
  int64_t scratch;                    /* shared: the largest session's */
} mk_gpu_budget;

void mk_gpu_budget_add(mk_gpu_budget *b, const mk_plan *plan, bool weights);

/* Fails, before anything is allocated, when the budget exceeds the free memory: the message says what is needed for what, and
 * what is free. Memory the device already holds for scratch counts as available. */
bool mk_gpu_budget_check(mk_gpu_device *d, const mk_gpu_budget *b, const char *what, mk_status *st);

/* For a program that opens several sessions: sum of all plans' needs, or with offload the largest plan's weights at a time. */
bool mk_gpu_plans_fit(mk_gpu_device *d, const mk_plan *const *plans, int count, bool offload, const char *what, mk_status *st);

bool mk_gpu_block_alloc(mk_gpu_device *d, mk_gpu_block *b, int64_t bytes, const char *what, mk_status *st);
void mk_gpu_block_free(mk_gpu_device *d, mk_gpu_block *b);

/* Makes the device's scratch at least this large. Growing waits for the device, moves the block and bumps
 * scratch_generation, by which sessions notice that their launches must be bound again. */
bool mk_gpu_scratch_reserve(mk_gpu_device *d, int64_t bytes, mk_status *st);

/* "12.3 GiB" into buf; returns buf. */
const char *mk_gpu_bytes_str(int64_t bytes, char buf[32]);

#endif
