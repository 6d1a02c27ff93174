#include "runtime/gpu/memory.h"

#include <stdio.h>

/* Kept free for modules, library kernels and graphs, which the driver allocates as it goes. */
static const int64_t reserve_bytes = (int64_t)256 << 20;

const char *mk_gpu_bytes_str(int64_t bytes, char buf[32]) {
  if (bytes >= (int64_t)1 << 30) {
    snprintf(buf, 32, "%.1f GiB", (double)bytes / (double)((int64_t)1 << 30));
  } else if (bytes >= 1 << 20) {
    snprintf(buf, 32, "%.1f MiB", (double)bytes / (double)(1 << 20));
  } else {
    snprintf(buf, 32, "%.1f KiB", (double)bytes / 1024.0);
  }
  return buf;
}

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

void mk_gpu_budget_add(mk_gpu_budget *b, const mk_plan *plan, bool weights) {
  if (weights) b->weights += plan->space_bytes[MK_SPACE_LOAD];
  b->prompt += plan->space_bytes[MK_SPACE_PROMPT];
  b->state += plan->space_bytes[MK_SPACE_STATE];
  b->io += plan->space_bytes[MK_SPACE_IO];
  b->scratch = max64(b->scratch, plan->space_bytes[MK_SPACE_SCRATCH]);
}

/* `soon` bytes will be free besides. */
static bool check(mk_gpu_device *d, const mk_gpu_budget *b, int64_t soon, const char *what, mk_status *st) {
  size_t free_bytes = 0, total = 0;
  if (!MK_CU(d->cu, st, cuMemGetInfo(&free_bytes, &total))) return false;
  free_bytes += (size_t)soon;
  int64_t scratch = max64(0, b->scratch - d->scratch.bytes); /* what growing adds in the end */
  int64_t need = b->weights + b->prompt + b->state + b->io + scratch + reserve_bytes;
  if (need <= (int64_t)free_bytes) return true;
  char s[9][32];
  mk_fail(
      st, MK_EGPU,
      "%s: not enough GPU memory: %s needed (%s weights, %s prompt values, %s states, %s inputs and outputs, %s scratch, %s "
      "reserve), %s of %s free on GPU %d (%s). Try a smaller size, fewer frames, --offload, or end other programs on this GPU",
      what, mk_gpu_bytes_str(need, s[0]), mk_gpu_bytes_str(b->weights, s[1]), mk_gpu_bytes_str(b->prompt, s[2]),
      mk_gpu_bytes_str(b->state, s[3]), mk_gpu_bytes_str(b->io, s[4]), mk_gpu_bytes_str(scratch, s[5]),
      mk_gpu_bytes_str(reserve_bytes, s[8]), mk_gpu_bytes_str((int64_t)free_bytes, s[6]), mk_gpu_bytes_str((int64_t)total, s[7]),
      d->ordinal, d->name);
  return false;
}

bool mk_gpu_budget_check(mk_gpu_device *d, const mk_gpu_budget *b, const char *what, mk_status *st) {
  return check(d, b, 0, what, st);
}

/* Whatever sessions are open now, and hold, is gone by then. */
bool mk_gpu_plans_fit(mk_gpu_device *d, const mk_plan *const *plans, int count, bool offload, const char *what, mk_status *st) {
  mk_gpu_budget budget = {0};
  int64_t largest = 0;
  for (int i = 0; i < count; i++) {
    mk_gpu_budget_add(&budget, plans[i], !offload);
    largest = max64(largest, plans[i]->space_bytes[MK_SPACE_LOAD]);
  }
  if (offload) budget.weights = largest;
  return mk_gpu_enter(d, st) && check(d, &budget, d->held_bytes - d->scratch.bytes - d->lt_workspace.bytes, what, st);
}

bool mk_gpu_block_alloc(mk_gpu_device *d, mk_gpu_block *b, int64_t bytes, const char *what, mk_status *st) {
  if (bytes <= 0) return true;
  CUresult r = d->cu->cuMemAlloc(&b->ptr, (size_t)bytes);
  if (r == CUDA_SUCCESS) {
    b->bytes = bytes;
    d->held_bytes += bytes;
    return true;
  }
  char size[32];
  b->ptr = 0;
  mk_driver_check(d->cu, r, "cuMemAlloc", st);
  mk_fail_context(st, "%s for %s on GPU %d", mk_gpu_bytes_str(bytes, size), what, d->ordinal);
  return false;
}

void mk_gpu_block_free(mk_gpu_device *d, mk_gpu_block *b) {
  if (b->ptr) d->cu->cuMemFree(b->ptr);
  d->held_bytes -= b->bytes;
  *b = (mk_gpu_block){0};
}

bool mk_gpu_scratch_reserve(mk_gpu_device *d, int64_t bytes, mk_status *st) {
  if (bytes <= d->scratch.bytes) return true;
  if (!MK_CU(d->cu, st, cuStreamSynchronize(d->stream))) return false;
  d->scratch_generation++;
  mk_gpu_block_free(d, &d->scratch); /* first: two large blocks may not fit together */
  return mk_gpu_block_alloc(d, &d->scratch, bytes, "scratch", st);
}
