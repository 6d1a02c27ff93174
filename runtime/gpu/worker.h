/* A compile worker: a process that turns CUDA source into cubins for the process that started it, so that a crash or a hang of
 * NVRTC costs one kernel and not the run. Jobs come in and results go out on one socket as mk_message. */
#ifndef MK_GPU_WORKER_H
#define MK_GPU_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MK_MESSAGE_MAGIC = 0x314b4d57, MK_MESSAGE_PARTS = 4 };

typedef enum mk_message_kind {
  MK_MESSAGE_HELLO, /* worker → parent, once: code 0 when NVRTC is there, else parts[0] says why not */
  MK_MESSAGE_JOB,   /* parent → worker: parts are name, source, options each ended by NUL; code 1: PTX is wanted */
  MK_MESSAGE_RESULT /* worker → parent: code is NVRTC's; parts are cubin, PTX, log, NVRTC's error text */
} mk_message_kind;

/* Both ends are the same program on the same machine, so this is sent as it stands, followed by the parts. */
typedef struct mk_message {
  uint32_t magic, kind;
  int32_t code;
  uint32_t reserved;
  double seconds; /* RESULT: time the compilation took */
  uint64_t bytes[MK_MESSAGE_PARTS];
} mk_message;

/* Sends header and parts; fills in magic. False when the other end is gone. */
bool mk_message_send(int fd, mk_message header, const void *const parts[MK_MESSAGE_PARTS]);

/* The worker's life: loads NVRTC (from nvrtc_path, or searched for when NULL), serves jobs on fd until its other end is closed.
 * Returns an exit code; the caller should leave with _exit, as NVRTC's own cleaning up is slow. */
int mk_worker_main(int fd, const char *nvrtc_path);

#endif
