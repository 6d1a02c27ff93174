/* The libraries: our declarations agree with NVIDIA's headers (where a toolkit is installed), and what is found answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* NVIDIA's names are also ours, so this file sees NVIDIA's headers and not cuda_api.h. Everything is checked while compiling. */
#if __has_include("/usr/local/cuda/include/cublasLt.h")
#include "/usr/local/cuda/include/cuda.h"
#include "/usr/local/cuda/include/cublasLt.h"
#include "/usr/local/cuda/include/nvrtc.h"

#define X(name, value) _Static_assert((name) == (value), #name);
#include "runtime/gpu/cuda_const.def"
#undef X

/* NVIDIA's headers map a plain name to its current version by macro, as our table does. */
#define SAME(result, field, symbol, parameters) \
  _Static_assert(__builtin_types_compatible_p(result parameters, __typeof__(symbol)), #symbol);
#define MK_DRIVER SAME
#define MK_NVRTC SAME
#define MK_CUBLASLT SAME
#include "runtime/gpu/symbols.def"

_Static_assert(sizeof(CUlaunchAttribute) == 72 && offsetof(CUlaunchAttribute, value) == 8, "CUlaunchAttribute");
_Static_assert(sizeof(CUlaunchConfig) == 56 && offsetof(CUlaunchConfig, attrs) == 40, "CUlaunchConfig");
_Static_assert(sizeof(CUtensorMap) == 128 && _Alignof(CUtensorMap) <= 128, "CUtensorMap");
_Static_assert(sizeof(CUuuid) == 16, "CUuuid");
_Static_assert(sizeof(cublasLtMatmulAlgo_t) == 64, "cublasLtMatmulAlgo_t");
_Static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == 96 && offsetof(cublasLtMatmulHeuristicResult_t, state) == 72,
               "heuristic result");
#define HEADERS 1
#else
#define HEADERS 0
#endif

static void declarations_agree(void **state) {
  (void)state;
  if (!HEADERS) skip();
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(declarations_agree)};
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
