#include "runtime/gpu/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "runtime/base/clock.h"
#include "runtime/gpu/library.h"

enum { MAX_OPTIONS = 64 };

static bool send_all(int fd, const void *data, size_t bytes) {
  const char *p = data;
  while (bytes) {
    ssize_t n = send(fd, p, bytes, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    p += n;
    bytes -= (size_t)n;
  }
  return true;
}

static bool receive_all(int fd, void *data, size_t bytes) {
  char *p = data;
  while (bytes) {
    ssize_t n = recv(fd, p, bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    bytes -= (size_t)n;
  }
  return true;
}

bool mk_message_send(int fd, mk_message header, const void *const parts[MK_MESSAGE_PARTS]) {
  header.magic = MK_MESSAGE_MAGIC;
  if (!send_all(fd, &header, sizeof header)) return false;
  for (int i = 0; i < MK_MESSAGE_PARTS; i++)
    if (header.bytes[i] && !send_all(fd, parts[i], (size_t)header.bytes[i])) return false;
  return true;
}

static bool say_hello(int fd, const mk_status *st) {
  mk_message m = {.kind = MK_MESSAGE_HELLO, .code = (int32_t)st->code, .bytes = {mk_failed(st) ? strlen(st->message) : 0}};
  return mk_message_send(fd, m, (const void *const[MK_MESSAGE_PARTS]){st->message});
}

typedef nvrtcResult (*size_fn)(nvrtcProgram, size_t *);
typedef nvrtcResult (*get_fn)(nvrtcProgram, char *);

/* One of the program's outputs in malloc'd memory; NULL with *bytes 0 when there is none. */
static char *fetch(nvrtcProgram program, size_fn size, get_fn get, uint64_t *bytes) {
  size_t n = 0;
  *bytes = 0;
  if (size(program, &n) != NVRTC_SUCCESS || n == 0) return NULL;
  char *data = malloc(n);
  if (data && get(program, data) == NVRTC_SUCCESS) {
    *bytes = n;
    return data;
  }
  free(data);
  return NULL;
}

static bool serve_job(const mk_nvrtc *n, int fd, const mk_message *job, const char *name, const char *source,
                      const char *options) {
  const char *list[MAX_OPTIONS];
  int count = 0;
  for (size_t at = 0; at < job->bytes[2] && count < MAX_OPTIONS; at += strlen(options + at) + 1) list[count++] = options + at;

  char file[256]; /* what messages call the source */
  snprintf(file, sizeof file, "%s.cu", name);
  nvrtcProgram program = NULL;
  mk_message m = {.kind = MK_MESSAGE_RESULT};
  double start = mk_now();
  nvrtcResult result = n->nvrtcCreateProgram(&program, source, file, 0, NULL, NULL);
  if (result == NVRTC_SUCCESS) result = n->nvrtcCompileProgram(program, count, list);
  m.seconds = mk_now() - start;
  m.code = (int32_t)result;
  char *cubin = NULL, *ptx = NULL, *log = NULL;
  if (program) {
    if (result == NVRTC_SUCCESS) cubin = fetch(program, n->nvrtcGetCUBINSize, n->nvrtcGetCUBIN, &m.bytes[0]);
    /* Also after a failure: ptxas's errors name lines of the PTX. */
    if (job->code == 1 || result != NVRTC_SUCCESS) ptx = fetch(program, n->nvrtcGetPTXSize, n->nvrtcGetPTX, &m.bytes[1]);
    log = fetch(program, n->nvrtcGetProgramLogSize, n->nvrtcGetProgramLog, &m.bytes[2]);
    n->nvrtcDestroyProgram(&program);
  }
  const char *text = n->nvrtcGetErrorString(result);
  m.bytes[3] = strlen(text);
  bool sent = mk_message_send(fd, m, (const void *const[MK_MESSAGE_PARTS]){cubin, ptx, log, text});
  free(cubin);
  free(ptx);
  free(log);
  return sent;
}

/* Receives one job and answers it. False when there are no more. */
static bool serve(const mk_nvrtc *n, int fd) {
  mk_message job;
  if (!receive_all(fd, &job, sizeof job) || job.magic != MK_MESSAGE_MAGIC || job.kind != MK_MESSAGE_JOB) return false;
  char *parts[MK_MESSAGE_PARTS] = {0};
  bool ok = true;
  for (int i = 0; i < MK_MESSAGE_PARTS && ok; i++) {
    parts[i] = calloc(1, (size_t)job.bytes[i] + 1);
    ok = parts[i] && receive_all(fd, parts[i], (size_t)job.bytes[i]);
  }
  ok = ok && serve_job(n, fd, &job, parts[0], parts[1], parts[2]);
  for (int i = 0; i < MK_MESSAGE_PARTS; i++) free(parts[i]);
  return ok;
}

int mk_worker_main(int fd, const char *nvrtc_path) {
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* a compilation cannot be told to stop otherwise */
  /* A program that was forked may have handlers, which would run here; the parent wants to see the signal. */
  static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTERM};
  for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) signal(crashes[i], SIG_DFL);
  signal(SIGINT, SIG_IGN);                        /* Ctrl-C reaches the whole group; the parent decides */
  setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* crashes are expected and reported */
  setenv("CUDA_CACHE_DISABLE", "1", 1);           /* NVRTC's own cache brings nothing beside ours */
  mk_status st = {0};
  mk_nvrtc *n = calloc(1, sizeof *n);
  if (!n) mk_fail(&st, MK_ENOMEM, "out of host memory");
  bool ready = n && mk_nvrtc_open(n, nvrtc_path, 0, &st);
  bool heard = say_hello(fd, &st);
  while (ready && heard && serve(n, fd)) continue;
  free(n);
  return ready && heard ? 0 : 1;
}
