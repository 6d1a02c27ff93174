/* The part of NVIDIA's binary interface that we call, declared here so that building needs no CUDA header. Names are NVIDIA's. */
#ifndef MK_GPU_CUDA_API_H
#define MK_GPU_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

enum {
#define X(name, value) name = value,
#include "runtime/gpu/cuda_const.def"
#undef X
};

/* Enumerations are plain numbers here: only their size matters to the caller. */
typedef unsigned CUresult, CUdevice_attribute, CUfunction_attribute, CUjit_option, CUstreamCaptureMode, CUlaunchAttributeID;
typedef unsigned CUtensorMapDataType, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill;
typedef unsigned nvrtcResult, cublasStatus_t, cublasComputeType_t, cudaDataType_t;
typedef unsigned cublasLtMatmulDescAttributes_t, cublasLtMatrixLayoutAttribute_t, cublasLtMatmulPreferenceAttributes_t;
typedef unsigned cublasLtMatmulAlgoConfigAttributes_t;

typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef uint32_t cuuint32_t;
typedef uint64_t cuuint64_t;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream, *cudaStream_t;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct CUgraphNode_st *CUgraphNode;

typedef struct CUuuid {
  char bytes[16];
} CUuuid;

typedef struct CUtensorMap {
  _Alignas(128) uint64_t opaque[16]; /* the interface asks for 64; headers since CUDA 13 say 128 */
} CUtensorMap;

typedef union CUlaunchAttributeValue {
  char pad[64];
  struct {
    unsigned x, y, z;
  } clusterDim;
  int programmaticStreamSerializationAllowed;
} CUlaunchAttributeValue;

typedef struct CUlaunchAttribute {
  CUlaunchAttributeID id;
  char pad[4];
  CUlaunchAttributeValue value;
} CUlaunchAttribute;

typedef struct CUlaunchConfig {
  unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute *attrs;
  unsigned numAttrs;
} CUlaunchConfig;

typedef struct nvrtcProgram_st *nvrtcProgram;

typedef struct cublasLtContext *cublasLtHandle_t;
typedef struct mk_lt_opaque *cublasLtMatmulDesc_t, *cublasLtMatrixLayout_t, *cublasLtMatmulPreference_t;
typedef struct cublasLtMatmulAlgo_t {
  uint64_t data[8];
} cublasLtMatmulAlgo_t;
typedef struct cublasLtMatmulHeuristicResult_t {
  cublasLtMatmulAlgo_t algo;
  size_t workspaceSize;
  cublasStatus_t state;
  float wavesCount;
  int reserved[4];
} cublasLtMatmulHeuristicResult_t;

/* The same is asserted of NVIDIA's own types in tests/unit/test_library.c. */
_Static_assert(sizeof(CUlaunchAttribute) == 72 && offsetof(CUlaunchAttribute, value) == 8, "CUlaunchAttribute");
_Static_assert(sizeof(CUlaunchConfig) == 56 && offsetof(CUlaunchConfig, attrs) == 40, "CUlaunchConfig");
_Static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == 96 && offsetof(cublasLtMatmulHeuristicResult_t, state) == 72,
               "heuristic result");

#endif
