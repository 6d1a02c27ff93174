/* The matmul library's algorithms by name, with a library that is made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/gpu/lt.h"

static int asked, refused; /* heuristics asked for; the algorithm number that running refuses */
static uint64_t ran;       /* the last algorithm run */

static const char *status_text(cublasStatus_t s) { return s ? "made-up failure" : "fine"; }
static cublasStatus_t make_desc(cublasLtMatmulDesc_t *d, cublasComputeType_t c, cudaDataType_t s) {
  return (void)c, (void)s, *d = (cublasLtMatmulDesc_t)1, 0;
}
static cublasStatus_t free_desc(cublasLtMatmulDesc_t d) { return (void)d, 0; }
static cublasStatus_t set_desc(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *v, size_t n) {
  return (void)d, (void)a, (void)v, (void)n, 0;
}
static cublasStatus_t make_layout(cublasLtMatrixLayout_t *l, cudaDataType_t t, uint64_t r, uint64_t c, int64_t ld) {
  return (void)t, (void)r, (void)c, (void)ld, *l = (cublasLtMatrixLayout_t)1, 0;
}
static cublasStatus_t free_layout(cublasLtMatrixLayout_t l) { return (void)l, 0; }
static cublasStatus_t make_preference(cublasLtMatmulPreference_t *p) { return *p = (cublasLtMatmulPreference_t)1, 0; }
static cublasStatus_t free_preference(cublasLtMatmulPreference_t p) { return (void)p, 0; }
static cublasStatus_t set_preference(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a, const void *v,
                                     size_t n) {
  return (void)p, (void)a, (void)v, (void)n, 0;
}

static cublasStatus_t heuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t e, cublasLtMatmulPreference_t p, int wanted,
                                cublasLtMatmulHeuristicResult_t *results, int *found) {
  (void)h, (void)d, (void)a, (void)b, (void)c, (void)e, (void)p, (void)wanted;
  asked++;
  *found = 3;
  for (int i = 0; i < 3; i++) results[i] = (cublasLtMatmulHeuristicResult_t){.algo = {{(uint64_t)(10 + i)}}};
  return 0;
}

static cublasStatus_t config(const cublasLtMatmulAlgo_t *algo, cublasLtMatmulAlgoConfigAttributes_t a, void *value, size_t bytes,
                             size_t *written) {
  uint32_t v = a == CUBLASLT_ALGO_CONFIG_ID ? 66 : a == CUBLASLT_ALGO_CONFIG_TILE_ID ? (uint32_t)algo->data[0] : 4000000000u;
  memcpy(value, &v, bytes);
  *written = bytes;
  return 0;
}

static cublasStatus_t matmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                             cublasLtMatrixLayout_t al, const void *b, cublasLtMatrixLayout_t bl, const void *beta, const void *c,
                             cublasLtMatrixLayout_t cl, void *d, cublasLtMatrixLayout_t dl, const cublasLtMatmulAlgo_t *algo,
                             void *workspace, size_t bytes, cudaStream_t stream) {
  (void)h, (void)desc, (void)alpha, (void)a, (void)al, (void)b, (void)bl, (void)beta, (void)c, (void)cl, (void)d, (void)dl;
  (void)workspace, (void)bytes, (void)stream;
  if ((int)algo->data[0] == refused) return CUBLAS_STATUS_NOT_SUPPORTED;
  ran = algo->data[0];
  return 0;
}

static const mk_cublaslt library = {.cublasLtGetStatusString = status_text,
                                    .cublasLtMatmulDescCreate = make_desc,
                                    .cublasLtMatmulDescDestroy = free_desc,
                                    .cublasLtMatmulDescSetAttribute = set_desc,
                                    .cublasLtMatrixLayoutCreate = make_layout,
                                    .cublasLtMatrixLayoutDestroy = free_layout,
                                    .cublasLtMatmulPreferenceCreate = make_preference,
                                    .cublasLtMatmulPreferenceDestroy = free_preference,
                                    .cublasLtMatmulPreferenceSetAttribute = set_preference,
                                    .cublasLtMatmulAlgoGetHeuristic = heuristic,
                                    .cublasLtMatmulAlgoConfigGetAttribute = config,
                                    .cublasLtMatmul = matmul};

static int taken; /* blocks of device memory */
static CUresult mem_alloc(CUdeviceptr *p, size_t bytes) { return (void)bytes, taken++, *p = 4096, CUDA_SUCCESS; }

static const mk_driver driver = {.version = 13000, .cuMemAlloc = mem_alloc};

static const mk_lt problem = {.m = 128, .n = 64, .k = 32, .ab_type = MK_BF16, .d_type = MK_BF16};

static int setup(void **state) {
  static mk_gpu_device d;
  d = (mk_gpu_device){.cu = &driver, .lt = &library};
  asked = refused = taken = 0;
  ran = 0;
  *state = &d;
  return 0;
}

static int teardown(void **state) {
  mk_arena_free(&((mk_gpu_device *)*state)->arena);
  return 0;
}

static uint64_t run(mk_gpu_device *d) {
  mk_status st = {0};
  mk_gpu_lt_op op;
  assert_true(mk_gpu_lt_make(d, &problem, &op, &st));
  assert_true(mk_gpu_lt_run(d, &op, &st));
  mk_gpu_lt_free(d, &op);
  return ran;
}

static void names_and_use(void **state) {
  mk_gpu_device *d = *state;
  mk_status st = {0};
  mk_gpu_lt_op op;
  char name[MK_GPU_LT_NAME];
  assert_true(mk_gpu_lt_make(d, &problem, &op, &st));
  assert_int_equal(mk_gpu_lt_count(&op), 3);
  assert_int_equal(mk_gpu_lt_used(&op), 0);
  mk_gpu_lt_name(d, &op, 2, name);
  assert_int_equal(strncmp(name, "66-12-", 6), 0); /* cut where it is too long, never beyond */
  assert_true(strlen(name) < MK_GPU_LT_NAME);
  op.algorithm = mk_gpu_lt_find(d, &op, name);
  assert_int_equal(mk_gpu_lt_used(&op), 2);
  assert_true(mk_gpu_lt_run(d, &op, &st));
  assert_int_equal(ran, 12);
  mk_gpu_lt_free(d, &op);
}

static void each_op_has_its_own(void **state) {
  mk_gpu_device *d = *state;
  mk_status st = {0};
  mk_gpu_lt_op one, other;
  assert_true(mk_gpu_lt_make(d, &problem, &one, &st));
  assert_true(mk_gpu_lt_make(d, &problem, &other, &st));
  assert_int_equal(asked, 1);
  assert_int_equal(taken, 1); /* the workspace, by the first */
  one.algorithm = 1;
  assert_true(mk_gpu_lt_run(d, &one, &st));
  assert_int_equal(ran, 11);
  assert_true(mk_gpu_lt_run(d, &other, &st));
  assert_int_equal(ran, 10);
  assert_int_equal(mk_gpu_lt_find(d, &one, "1-2-3"), -1);
  mk_gpu_lt_free(d, &one);
  mk_gpu_lt_free(d, &other);
}

static void refused_algorithms_are_passed_over(void **state) {
  mk_gpu_device *d = *state;
  refused = 10;
  assert_int_equal(run(d), 11);
  mk_status st = {0};
  mk_gpu_lt_op op;
  assert_true(mk_gpu_lt_make(d, &problem, &op, &st));
  op.algorithm = 0; /* by name, too, and known by now */
  assert_int_equal(mk_gpu_lt_used(&op), 1);
  mk_gpu_lt_free(d, &op);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(names_and_use, setup, teardown),
      cmocka_unit_test_setup_teardown(each_op_has_its_own, setup, teardown),
      cmocka_unit_test_setup_teardown(refused_algorithms_are_passed_over, setup, teardown),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
