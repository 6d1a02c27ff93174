/* One GPU: its context, streams, shared scratch memory, staging buffers and the matmul library's handle. */
#ifndef MK_GPU_DEVICE_H
#define MK_GPU_DEVICE_H

#include "runtime/base/arena.h"
#include "runtime/base/status.h"
#include "runtime/gpu/cache.h"
#include "runtime/gpu/library.h"

typedef struct mk_gpu_block { /* device memory */
  CUdeviceptr ptr;
  int64_t bytes;
} mk_gpu_block;

enum { MK_GPU_SLOTS = 4 };
typedef struct mk_gpu_slot { /* a page-locked staging buffer */
  void *host;
  int64_t bytes;
  CUevent done; /* recorded after the copy that last used it */
} mk_gpu_slot;

/* How far opening a device has come. */
typedef enum mk_gpu_opened {
  MK_GPU_DRIVER, /* the driver is loaded, and is being initialised */
  MK_GPU_KNOWN,  /* name, arch, sms, smem_limit, total_bytes */
  MK_GPU_READY,  /* context, streams: kernels can be launched */
  MK_GPU_LIBRARY /* lt and lt_handle, or lt_missing */
} mk_gpu_opened;

/* Sessions of one device share it and are used from one thread at a time: their work follows in order on one stream. */
typedef struct mk_gpu_device {
  const mk_driver *cu;            /* owned */
  const mk_cublaslt *lt;          /* owned; NULL: not there, see lt_missing */
  struct mk_gpu_opening *opening; /* owned; NULL: all is there */
  int ordinal;
  CUdevice device;
  CUcontext context; /* the primary context, retained */
  CUstream stream, copy_stream;
  CUevent order; /* orders the two streams while weights load */
  char name[128];
  int arch; /* 80, 90, ... */
  int sms;
  int smem_limit; /* bytes of shared memory a block may use */
  int64_t total_bytes;
  int64_t held_bytes;   /* of all blocks */
  mk_gpu_block scratch; /* shared by all sessions; moves when it grows */
  uint64_t scratch_generation;
  mk_gpu_slot slots[MK_GPU_SLOTS];
  int next_slot;
  cublasLtHandle_t lt_handle;
  mk_gpu_block lt_workspace;           /* taken by the first matmul that is made */
  struct mk_gpu_lt_choice *lt_choices; /* algorithms per problem, found once; see lt.h */
  bool launched;                       /* a kernel, ever */
  int compiled;                        /* kernels, instead of being found in the cache */
  mk_arena arena;                      /* owns lt_choices */
  mk_cache cache;                      /* of compiled kernels */
  mk_status lt_missing;                /* why there is no matmul library */
} mk_gpu_device;

/* Opens GPU `ordinal`. NULL with a message that says what is missing: driver, GPU, memory. A missing matmul library is no
 * failure: plans made with cublaslt = false do without. */
mk_gpu_device *mk_gpu_device_open(int ordinal, mk_status *st);
/* The same on threads of its own, which takes some tenths of a second: returns when the driver is loaded. Use only what was
 * waited for. */
mk_gpu_device *mk_gpu_device_begin(int ordinal, mk_status *st);
/* Waits until the device is opened that far; false with what mk_gpu_device_open says. From any thread. */
bool mk_gpu_device_wait(mk_gpu_device *d, mk_gpu_opened far, mk_status *st);
void mk_gpu_device_close(mk_gpu_device *d); /* after all its sessions; NULL is fine */

/* Whether there is a matmul library; until MK_GPU_LIBRARY, whether there may be one. From any thread. */
bool mk_gpu_device_has_lt(mk_gpu_device *d);
/* The matmul library will be used: it sets itself up, which takes it 0.1 s at its first use otherwise, beside whatever the caller
 * does meanwhile. From any thread. */
void mk_gpu_device_expect_lt(mk_gpu_device *d);

/* Waits until kernels can be launched, and makes the device's context this thread's current one. */
bool mk_gpu_enter(mk_gpu_device *d, mk_status *st);
/* After a launch of a kernel: the first one ends the start, for the timeline. */
void mk_gpu_launched(mk_gpu_device *d);
bool mk_gpu_wait(mk_gpu_device *d, mk_status *st); /* until the stream is empty */

#endif
