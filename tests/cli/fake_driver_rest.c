/* The functions of the made-up driver that do nothing. Weak: fake_driver.c has the others. */
#include "runtime/gpu/cuda_api.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"
#define MK_DRIVER(result, field, symbol, parameters) \
  __attribute__((weak)) result symbol parameters { return 0; }
#include "runtime/gpu/symbols.def"
