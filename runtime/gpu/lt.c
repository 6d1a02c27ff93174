/* The library is column-major. A row-major [r,c] matrix is its column-major [c,r], so d[m,n] = a[m,k] b[n,k]^T is asked for as
 * d'[n,m] = (b'[k,n])^T a'[k,m]: the library's A is our b, transposed, its B is our a, and its bias runs along our n. */
#include "runtime/gpu/lt.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/base/text.h"
#include "runtime/gpu/memory.h"

/* What the library's Hopper kernels ask for at most; smaller parts use less. */
static const int64_t workspace_bytes = 64 << 20;

static bool lt_ok(mk_gpu_device *d, cublasStatus_t r, const char *call, mk_status *st) {
  if (r == CUBLAS_STATUS_SUCCESS) return true;
  const char *text = d->lt->cublasLtGetStatusString(r);
  bool unsupported = r == CUBLAS_STATUS_NOT_SUPPORTED;
  mk_fail(st, unsupported ? MK_EUNSUPPORTED : MK_EGPU, "%s: %s", call, text ? text : "unknown error");
  return false;
}

static cudaDataType_t data_type(mk_dtype t) {
  switch (t) {
    case MK_BF16: return CUDA_R_16BF;
    case MK_F16: return CUDA_R_16F;
    default: return CUDA_R_32F;
  }
}

static uint32_t epilogue_of(mk_lt_epilogue e) {
  switch (e) {
    case MK_LT_BIAS: return CUBLASLT_EPILOGUE_BIAS;
    case MK_LT_GELU: return CUBLASLT_EPILOGUE_GELU;
    case MK_LT_GELU_BIAS: return CUBLASLT_EPILOGUE_GELU_BIAS;
    default: return CUBLASLT_EPILOGUE_DEFAULT;
  }
}

static bool has_bias(const mk_lt *lt) { return lt->epilogue == MK_LT_BIAS || lt->epilogue == MK_LT_GELU_BIAS; }

/* The largest power of two, at most 256, that divides the offset: buffers themselves are 256-byte aligned. */
static uint32_t alignment(mk_ref ref) {
  uint64_t low = (uint64_t)ref.offset & (~(uint64_t)ref.offset + 1);
  return low == 0 || low > 256 ? 256 : (uint32_t)low;
}

/* Of what decides the algorithms. */
static uint64_t problem_key(const mk_lt *lt) {
  mk_text t = {0};
  mk_text_addf(&t, "m %lld n %lld k %lld ld %lld %lld %lld %lld", (long long)lt->m, (long long)lt->n, (long long)lt->k,
               (long long)lt->lda, (long long)lt->ldb, (long long)lt->ldc, (long long)lt->ldd);
  mk_text_addf(&t, " types %d %d %d %d tf32 %d epilogue %d beta %d", (int)lt->ab_type, (int)lt->c_type, (int)lt->d_type,
               (int)lt->bias_type, lt->tf32, (int)lt->epilogue, lt->beta != 0);
  mk_text_addf(&t, " alignment %u %u %u %u\n", alignment(lt->a), alignment(lt->b), alignment(lt->c), alignment(lt->d));
  uint64_t key = mk_hash64(mk_text_str(&t), t.len);
  mk_text_free(&t);
  return key;
}

/* ---- algorithms */

static void name_of(const mk_cublaslt *lib, const cublasLtMatmulAlgo_t *algo, char name[MK_GPU_LT_NAME]) {
  static const struct {
    cublasLtMatmulAlgoConfigAttributes_t attribute;
    size_t bytes;
  } fields[] = {{CUBLASLT_ALGO_CONFIG_ID, 4},
                {CUBLASLT_ALGO_CONFIG_TILE_ID, 4},
                {CUBLASLT_ALGO_CONFIG_STAGES_ID, 4},
                {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4},
                {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4},
                {CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4},
                {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4},
                {CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2},
                {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2}};
  int n = 0;
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    uint32_t value = 0; /* an attribute that this version lacks stays 0 */
    size_t written = 0;
    lib->cublasLtMatmulAlgoConfigGetAttribute(algo, fields[i].attribute, &value, fields[i].bytes, &written);
    n += snprintf(name + n, MK_GPU_LT_NAME - (size_t)n, i ? "-%u" : "%u", value);
    if (n >= MK_GPU_LT_NAME) break;
  }
}

int mk_gpu_lt_count(const mk_gpu_lt_op *op) { return op->choice->count; }
int mk_gpu_lt_used(const mk_gpu_lt_op *op) {
  const mk_gpu_lt_choice *c = op->choice;
  int at = op->algorithm >= 0 ? op->algorithm : c->best;
  while (c->refused[at] && at + 1 < c->count) at++;
  return at;
}

void mk_gpu_lt_name(const mk_gpu_device *d, const mk_gpu_lt_op *op, int algorithm, char name[MK_GPU_LT_NAME]) {
  name_of(d->lt, &op->choice->algos[algorithm], name);
}

int mk_gpu_lt_find(const mk_gpu_device *d, const mk_gpu_lt_op *op, const char *name) {
  char other[MK_GPU_LT_NAME];
  for (int i = 0; i < mk_gpu_lt_count(op); i++) {
    mk_gpu_lt_name(d, op, i, other);
    if (!strcmp(name, other)) return i;
  }
  return -1;
}

/* The device's for the problem, made if need be; without algorithms at first. */
static mk_gpu_lt_choice *find_choice(mk_gpu_device *d, const mk_lt *lt) {
  uint64_t key = problem_key(lt);
  mk_gpu_lt_choice *c = d->lt_choices;
  while (c && c->key != key) c = c->next;
  if (c) return c;
  c = MK_NEW(&d->arena, mk_gpu_lt_choice);
  *c = (mk_gpu_lt_choice){.next = d->lt_choices, .key = key};
  return d->lt_choices = c;
}

/* Asks the library for at most `most` algorithms; how many there are. The addresses' alignments are those of op->lt. */
static int ask(mk_gpu_device *d, const mk_gpu_lt_op *op, cublasLtMatmulHeuristicResult_t *results, int most, mk_status *st) {
  const mk_cublaslt *lib = d->lt;
  const mk_lt *lt = op->lt;
  cublasLtMatmulPreference_t pref = NULL;
  if (!lt_ok(d, lib->cublasLtMatmulPreferenceCreate(&pref), "cublasLtMatmulPreferenceCreate", st)) return 0;
  size_t workspace = (size_t)workspace_bytes;
  mk_ref c = lt->beta != 0 ? lt->c : lt->d;
  const struct {
    cublasLtMatmulPreferenceAttributes_t attribute;
    uint32_t value;
  } aligns[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(lt->b)},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(lt->a)},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(c)},
                {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(lt->d)}};
  cublasStatus_t r =
      lib->cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
  for (size_t i = 0; i < sizeof aligns / sizeof *aligns && r == CUBLAS_STATUS_SUCCESS; i++)
    r = lib->cublasLtMatmulPreferenceSetAttribute(pref, aligns[i].attribute, &aligns[i].value, sizeof aligns[i].value);
  int found = 0;
  if (r == CUBLAS_STATUS_SUCCESS)
    r = lib->cublasLtMatmulAlgoGetHeuristic(d->lt_handle, op->desc, op->a, op->b, op->c, op->d, pref, most, results, &found);
  lib->cublasLtMatmulPreferenceDestroy(pref);
  return lt_ok(d, r, "cublasLtMatmulAlgoGetHeuristic", st) ? found : 0;
}

/* Asks which algorithms the library has for the problem. */
static bool ask_for(mk_gpu_device *d, const mk_gpu_lt_op *op, mk_gpu_lt_choice *choice, mk_status *st) {
  const mk_lt *lt = op->lt;
  cublasLtMatmulHeuristicResult_t results[MK_GPU_LT_TRIED];
  int found = ask(d, op, results, MK_GPU_LT_TRIED, st);
  for (int i = 0; i < found; i++)
    if (results[i].state == CUBLAS_STATUS_SUCCESS && results[i].workspaceSize <= (size_t)workspace_bytes)
      choice->algos[choice->count++] = results[i].algo;
  if (choice->count) return true;
  mk_fail(st, MK_EUNSUPPORTED, "cuBLASLt has no algorithm for m=%lld n=%lld k=%lld", (long long)lt->m, (long long)lt->n,
          (long long)lt->k); /* unless there is another reason */
  return false;
}

/* The problem's algorithms, or NULL. One question at a time: some are asked ahead, on other threads. */
static mk_gpu_lt_choice *choose(mk_gpu_device *d, const mk_gpu_lt_op *op, mk_status *st) {
  static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&asking);
  mk_gpu_lt_choice *c = find_choice(d, op->lt);
  bool ok = c->count || ask_for(d, op, c, st);
  pthread_mutex_unlock(&asking);
  return ok ? c : NULL;
}

static bool make_layouts(mk_gpu_device *d, mk_gpu_lt_op *op, mk_status *st) {
  const mk_lt *lt = op->lt;
  cudaDataType_t ab = data_type(lt->ab_type), dt = data_type(lt->d_type), ct = lt->beta != 0 ? data_type(lt->c_type) : dt;
  int64_t ldc = lt->beta != 0 ? lt->ldc : lt->ldd;
  uint64_t m = (uint64_t)lt->m, n = (uint64_t)lt->n, k = (uint64_t)lt->k;
  return lt_ok(d, d->lt->cublasLtMatrixLayoutCreate(&op->a, ab, k, n, lt->ldb), "cublasLtMatrixLayoutCreate", st) &&
         lt_ok(d, d->lt->cublasLtMatrixLayoutCreate(&op->b, ab, k, m, lt->lda), "cublasLtMatrixLayoutCreate", st) &&
         lt_ok(d, d->lt->cublasLtMatrixLayoutCreate(&op->c, ct, n, m, ldc), "cublasLtMatrixLayoutCreate", st) &&
         lt_ok(d, d->lt->cublasLtMatrixLayoutCreate(&op->d, dt, n, m, lt->ldd), "cublasLtMatrixLayoutCreate", st);
}

static bool set(mk_gpu_device *d, mk_gpu_lt_op *op, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes,
                mk_status *st) {
  return lt_ok(d, d->lt->cublasLtMatmulDescSetAttribute(op->desc, attribute, value, bytes), "cublasLtMatmulDescSetAttribute", st);
}

static bool make_desc(mk_gpu_device *d, mk_gpu_lt_op *op, mk_status *st) {
  const mk_lt *lt = op->lt;
  bool tf32 = lt->ab_type == MK_F32 && lt->tf32;
  cublasComputeType_t compute = tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  if (!lt_ok(d, d->lt->cublasLtMatmulDescCreate(&op->desc, compute, CUDA_R_32F), "cublasLtMatmulDescCreate", st)) return false;
  int32_t transposed = CUBLAS_OP_T;
  uint32_t epilogue = epilogue_of(lt->epilogue);
  if (!set(d, op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed, st)) return false;
  if (!set(d, op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, st)) return false;
  if (!has_bias(lt)) return true;
  int32_t type = data_type(lt->bias_type);
  CUdeviceptr stand_in = 256; /* the heuristics look at the pointer's alignment only; bind sets the real one */
  return set(d, op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type, st) &&
         set(d, op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &stand_in, sizeof stand_in, st);
}

/* Waits for the library, and takes its workspace; a status says what is missing. */
static bool enter(mk_gpu_device *d, mk_status *st) {
  if (!mk_gpu_device_wait(d, MK_GPU_LIBRARY, st)) return false;
  if (!d->lt) return mk_fail(st, MK_EUNSUPPORTED, "%s", d->lt_missing.message), false;
  return d->lt_workspace.bytes || mk_gpu_block_alloc(d, &d->lt_workspace, workspace_bytes, "the matmul workspace", st);
}

bool mk_gpu_lt_make(mk_gpu_device *d, const mk_lt *lt, mk_gpu_lt_op *op, mk_status *st) {
  *op = (mk_gpu_lt_op){.lt = lt, .algorithm = -1};
  if (!enter(d, st)) return false;
  if (make_desc(d, op, st) && make_layouts(d, op, st)) op->choice = choose(d, op, st);
  if (op->choice) return true;
  mk_gpu_lt_free(d, op);
  return false;
}

void mk_gpu_lt_free(mk_gpu_device *d, mk_gpu_lt_op *op) {
  cublasLtMatrixLayout_t layouts[] = {op->a, op->b, op->c, op->d};
  for (int i = 0; i < 4; i++)
    if (layouts[i]) d->lt->cublasLtMatrixLayoutDestroy(layouts[i]);
  if (op->desc) d->lt->cublasLtMatmulDescDestroy(op->desc);
  *op = (mk_gpu_lt_op){0};
}

bool mk_gpu_lt_bind(mk_gpu_device *d, mk_gpu_lt_op *op, CUdeviceptr a, CUdeviceptr b, CUdeviceptr c, CUdeviceptr dst,
                    CUdeviceptr bias, mk_status *st) {
  op->pa = a, op->pb = b, op->pd = dst;
  op->pc = op->lt->beta != 0 ? c : dst;
  return !has_bias(op->lt) || set(d, op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias, st);
}

static cublasStatus_t run(mk_gpu_device *d, const mk_gpu_lt_op *op, const cublasLtMatmulAlgo_t *algo) {
  const float alpha = 1;
  return d->lt->cublasLtMatmul(d->lt_handle, op->desc, &alpha, (const void *)op->pb, op->a, (const void *)op->pa, op->b,
                               &op->lt->beta, (const void *)op->pc, op->c, (void *)op->pd, op->d, algo,
                               (void *)d->lt_workspace.ptr, (size_t)d->lt_workspace.bytes, (cudaStream_t)d->stream);
}

bool mk_gpu_lt_run(mk_gpu_device *d, const mk_gpu_lt_op *op, mk_status *st) {
  mk_gpu_lt_choice *choice = op->choice;
  int at = mk_gpu_lt_used(op);
  cublasStatus_t r = run(d, op, &choice->algos[at]);
  /* A heuristic result is a promise the library does not always keep: go on to its next one, for good. */
  while (r == CUBLAS_STATUS_NOT_SUPPORTED && at + 1 < choice->count) {
    choice->refused[at] = true;
    at = mk_gpu_lt_used(op);
    r = run(d, op, &choice->algos[at]);
  }
  return lt_ok(d, r, "cublasLtMatmul", st);
}

/* What is asked does not matter. */
void mk_gpu_lt_wake(mk_gpu_device *d) {
  static const mk_lt any = {
      .m = 128, .n = 128, .k = 128, .lda = 128, .ldb = 128, .ldc = 128, .ldd = 128, .ab_type = MK_BF16, .d_type = MK_BF16};
  mk_gpu_lt_op op = {.lt = &any};
  cublasLtMatmulHeuristicResult_t one;
  mk_status ignored = {0};
  if (make_desc(d, &op, &ignored) && make_layouts(d, &op, &ignored)) ask(d, &op, &one, 1, &ignored);
  mk_gpu_lt_free(d, &op);
  mk_timeline("cuBLASLt set up");
}

void mk_gpu_lt_ask_ahead(mk_gpu_device *d, const mk_plan *plan) {
  mk_status ignored = {0};
  for (int g = 0; g < plan->ngroups; g++) {
    const mk_candidate *c = &plan->groups[g].candidates[plan->groups[g].chosen];
    for (int i = 0; i < c->nlaunches; i++) {
      if (c->launches[i].kind != MK_LAUNCH_LT) continue;
      if (!mk_gpu_device_wait(d, MK_GPU_LIBRARY, &ignored) || !d->lt || !mk_gpu_enter(d, &ignored)) return;
      mk_gpu_lt_op op = {.lt = c->launches[i].lt};
      if (make_desc(d, &op, &ignored) && make_layouts(d, &op, &ignored)) choose(d, &op, &ignored);
      mk_gpu_lt_free(d, &op);
    }
  }
}

/* ---- timing */

/* The least of a few timed runs after one warm-up, or a negative number when the algorithm does not work. */
static float time_algo(mk_gpu_device *d, const mk_gpu_lt_op *op, const cublasLtMatmulAlgo_t *algo, CUevent begin, CUevent end) {
  enum { RUNS = 3 };
  float least = -1;
  for (int i = -1; i < RUNS; i++) {
    float ms = 0;
    if (d->cu->cuEventRecord(begin, d->stream) != CUDA_SUCCESS || run(d, op, algo) != CUBLAS_STATUS_SUCCESS) return -1;
    if (d->cu->cuEventRecord(end, d->stream) != CUDA_SUCCESS || d->cu->cuEventSynchronize(end) != CUDA_SUCCESS) return -1;
    if (d->cu->cuEventElapsedTime(&ms, begin, end) != CUDA_SUCCESS) return -1;
    if (i >= 0 && (least < 0 || ms < least)) least = ms;
  }
  return least;
}

/* Whether the two row-major matrices share memory. */
static bool overlap(CUdeviceptr a, int64_t rows_a, int64_t bytes_a, CUdeviceptr b, int64_t rows_b, int64_t bytes_b) {
  return a < b + (CUdeviceptr)(rows_b * bytes_b) && b < a + (CUdeviceptr)(rows_a * bytes_a);
}

static bool reads_its_result(const mk_gpu_lt_op *op) {
  const mk_lt *lt = op->lt;
  int64_t ab = (int64_t)mk_dtype_size(lt->ab_type), dd = lt->ldd * (int64_t)mk_dtype_size(lt->d_type);
  int64_t cc = lt->ldc * (int64_t)mk_dtype_size(lt->c_type);
  return overlap(op->pa, lt->m, lt->lda * ab, op->pd, lt->m, dd) || overlap(op->pb, lt->n, lt->ldb * ab, op->pd, lt->m, dd) ||
         (lt->beta != 0 && overlap(op->pc, lt->m, cc, op->pd, lt->m, dd));
}

bool mk_gpu_lt_tune(mk_gpu_device *d, const mk_gpu_lt_op *op, mk_status *st) {
  mk_gpu_lt_choice *choice = op->choice;
  if (choice->timed || op->algorithm >= 0 || reads_its_result(op)) return true;
  CUevent begin = NULL, end = NULL;
  bool ok = MK_CU(d->cu, st, cuEventCreate(&begin, CU_EVENT_DEFAULT)) && MK_CU(d->cu, st, cuEventCreate(&end, CU_EVENT_DEFAULT));
  float best = -1, first = -1;
  for (int i = 0; ok && i < choice->count; i++) {
    float ms = time_algo(d, op, &choice->algos[i], begin, end);
    if (i == 0) first = ms;
    if (ms >= 0 && (best < 0 || ms < best)) {
      best = ms;
      choice->best = i;
    }
  }
  if (begin) d->cu->cuEventDestroy(begin);
  if (end) d->cu->cuEventDestroy(end);
  choice->timed = ok;
  if (ok)
    mk_log(MK_LOG_DEBUG, "cuBLASLt m=%lld n=%lld k=%lld: algorithm %d of %d, %.4f ms (first: %.4f ms)", (long long)op->lt->m,
           (long long)op->lt->n, (long long)op->lt->k, choice->best + 1, choice->count, (double)best, (double)first);
  return ok;
}
