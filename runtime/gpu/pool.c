#include "runtime/gpu/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/env.h"
#include "runtime/base/log.h"

enum { WAIT_MS = 100, HELLO_SECONDS = 120, IDLE = -1, GREETING = -2 };
static const uint64_t max_part = 1ull << 30; /* a size above this comes from a process that went wrong */

typedef struct worker {
  pid_t pid; /* 0: the slot is free */
  int fd;    /* our end of the socket */
  int said;  /* a memory file that holds what the process writes on its standard outputs */
  int job;   /* position in the queue, IDLE, or GREETING until the first message */
  double deadline;
  char *data; /* of the message being received */
  size_t len, cap;
} worker;

struct mk_pool {
  const mk_pool_job *jobs;
  int njobs, next; /* jobs before next were handed out */
  int timeout;
  const char *nvrtc_path;
  int nworkers;
  worker workers[];
};

/* ---- processes ---- */

/* What to start as a worker; NULL: nothing, fork instead. */
static const char *worker_program(void) {
  if (mk_env_get()->worker) return mk_env_get()->worker;
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0) return NULL;
  self[n] = 0;
  const char *slash = strrchr(self, '/');
  /* By /proc/self/exe rather than its path: also right when the file was replaced meanwhile. */
  return slash && !strcmp(slash, "/moonkiln") ? "/proc/self/exe" : NULL;
}

static bool spawn_program(worker *w, const char *program, int theirs, const char *nvrtc_path, mk_status *st) {
  char *args[] = {(char *)(uintptr_t)program, "compile-worker", (char *)(uintptr_t)nvrtc_path, NULL};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, defaults;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, w->said, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, w->said, STDERR_FILENO);
  posix_spawnattr_init(&attributes);
  sigemptyset(&none);
  sigfillset(&defaults);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  extern char **environ;
  int error = posix_spawn(&w->pid, program, &actions, &attributes, args, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (!error) return true;
  w->pid = 0;
  mk_fail(st, MK_EIO, "cannot start the compile worker %s: %s", program, strerror(error));
  return false;
}

static bool fork_self(mk_pool *p, worker *w, int theirs, mk_status *st) {
  fflush(NULL); /* buffered output must not come out twice */
  pid_t pid = fork();
  if (pid < 0) {
    mk_fail(st, MK_EIO, "cannot start a compile worker: %s", strerror(errno));
    return false;
  }
  if (pid == 0) {
    for (int i = 0; i < p->nworkers; i++)
      if (p->workers[i].pid) close(p->workers[i].fd); /* else their ends would stay open here */
    close(w->fd);
    dup2(w->said, STDOUT_FILENO);
    dup2(w->said, STDERR_FILENO);
    _exit(mk_worker_main(theirs, p->nvrtc_path));
  }
  w->pid = pid;
  return true;
}

/* Out of the way of the standard streams' numbers, which are given out when this process was started with one of them closed. */
static int raise_fd(int fd) {
  if (fd < 0 || fd > STDERR_FILENO) return fd;
  int raised = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  close(fd);
  return raised;
}

static bool start_worker(mk_pool *p, worker *w, mk_status *st) {
  int ends[2] = {-1, -1};
  *w = (worker){.fd = -1, .said = -1, .job = GREETING};
  bool paired = !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
  ends[0] = raise_fd(ends[0]);
  ends[1] = raise_fd(ends[1]);
  w->said = raise_fd(memfd_create("moonkiln-worker", MFD_CLOEXEC));
  if (!paired || ends[0] < 0 || ends[1] < 0 || w->said < 0) {
    mk_fail(st, MK_EIO, "cannot start a compile worker: %s", strerror(errno));
  } else {
    w->fd = ends[0];
    const char *program = worker_program();
    bool started = program ? spawn_program(w, program, ends[1], p->nvrtc_path, st) : fork_self(p, w, ends[1], st);
    if (started) w->deadline = mk_now() + HELLO_SECONDS;
  }
  if (ends[1] >= 0) close(ends[1]);
  if (w->pid) return true;
  if (ends[0] >= 0) close(ends[0]);
  if (w->said >= 0) close(w->said);
  return false;
}

/* Ends the process, whatever it is doing, and frees the slot. */
static void end_worker(worker *w, mk_pool_event *e) {
  int status = 0;
  if (w->pid <= 0) return;
  kill(w->pid, SIGKILL); /* no effect on one that is dying: how it ends is settled when its socket closes */
  pid_t gone;
  do gone = waitpid(w->pid, &status, 0);
  while (gone < 0 && errno == EINTR);
  if (e) {
    if (gone == w->pid && WIFSIGNALED(status)) e->signal = WTERMSIG(status);
    if (gone == w->pid && WIFEXITED(status)) e->exit_code = WEXITSTATUS(status);
    off_t size = lseek(w->said, 0, SEEK_END), room = (off_t)sizeof e->output - 1;
    ssize_t n = pread(w->said, e->output, (size_t)room, size > room ? size - room : 0);
    e->output[n > 0 ? n : 0] = 0;
  }
  close(w->fd);
  close(w->said);
  free(w->data);
  *w = (worker){0};
}

/* ---- jobs ---- */

/* A worker that died before it took the job is noticed when its socket is read, with the job on its name. */
static void give_job(mk_pool *p, worker *w) {
  const mk_pool_job *j = &p->jobs[p->next];
  w->job = p->next++;
  w->deadline = mk_now() + p->timeout;
  mk_message m = {.kind = MK_MESSAGE_JOB, .code = j->want_ptx, .bytes = {strlen(j->name), strlen(j->source), j->options_bytes}};
  mk_message_send(w->fd, m, (const void *const[MK_MESSAGE_PARTS]){j->name, j->source, j->options});
}

static uint64_t message_bytes(const mk_message *m) {
  uint64_t total = sizeof *m;
  for (int i = 0; i < MK_MESSAGE_PARTS; i++) total += m->bytes[i];
  return total;
}

static bool sane(const mk_message *m) {
  for (int i = 0; i < MK_MESSAGE_PARTS; i++)
    if (m->bytes[i] > max_part) return false;
  return m->magic == MK_MESSAGE_MAGIC && m->kind != MK_MESSAGE_JOB;
}

typedef enum received { WAITING, WHOLE, ENDED } received;

static received receive(worker *w) {
  for (;;) {
    mk_message header = {0};
    size_t want = sizeof header;
    if (w->len >= sizeof header) {
      memcpy(&header, w->data, sizeof header);
      if (!sane(&header)) return ENDED;
      want = (size_t)message_bytes(&header);
      if (w->len == want) return WHOLE;
    }
    if (w->cap < want) {
      char *grown = realloc(w->data, want);
      if (!grown) return ENDED;
      w->data = grown;
      w->cap = want;
    }
    ssize_t n = recv(w->fd, w->data + w->len, want - w->len, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return WAITING;
    if (n <= 0) return ENDED;
    w->len += (size_t)n;
  }
}

/* Splits the message received into the event's parts. */
static bool unpack(worker *w, mk_pool_event *e) {
  memcpy(&e->message, w->data, sizeof e->message);
  const char *p = w->data + sizeof e->message;
  for (int i = 0; i < MK_MESSAGE_PARTS; i++) {
    size_t n = (size_t)e->message.bytes[i];
    e->parts[i] = malloc(n + 1);
    if (!e->parts[i]) return false;
    memcpy(e->parts[i], p, n);
    e->parts[i][n] = 0;
    p += n;
  }
  w->len = 0;
  return true;
}

static bool greeted(worker *w, mk_pool_event *e, mk_status *st) {
  if (e->message.code) {
    mk_fail(st, (mk_code)e->message.code, "in a compile worker: %s", e->parts[0]);
    return false;
  }
  w->job = IDLE;
  return true;
}

static bool handle(mk_pool *p, worker *w, mk_pool_event *e, mk_status *st) {
  received r = receive(w);
  if (r == WAITING && mk_now() < w->deadline) return true;
  if (r == WHOLE) {
    if (!unpack(w, e)) {
      mk_fail(st, MK_ENOMEM, "out of host memory for a compiled kernel");
      return false;
    }
    if (w->job == GREETING) {
      bool ok = greeted(w, e, st);
      mk_pool_event_free(e);
      return ok;
    }
    e->kind = MK_POOL_RESULT;
    e->job = p->jobs[w->job].index;
    w->job = IDLE;
    return true;
  }
  bool starting = w->job == GREETING;
  e->kind = r == WAITING ? MK_POOL_TIMEOUT : MK_POOL_DIED;
  if (!starting) e->job = p->jobs[w->job].index;
  end_worker(w, e);
  if (!starting) return true;
  mk_fail(st, MK_EGPU, "a compile worker %s (signal %d, exit code %d)%s%s",
          e->kind == MK_POOL_TIMEOUT ? "did not get ready in time" : "ended before it was ready", e->signal, e->exit_code,
          e->output[0] ? "; it said: " : "", e->output);
  return false;
}

mk_pool *mk_pool_open(const mk_pool_job *jobs, int n, int workers, int timeout, const char *nvrtc_path, mk_status *st) {
  int count = workers < n ? workers : n;
  mk_pool *p = calloc(1, sizeof *p + sizeof(worker) * (size_t)count);
  if (!p) {
    mk_fail(st, MK_ENOMEM, "out of host memory for compile workers");
    return NULL;
  }
  p->jobs = jobs;
  p->njobs = n;
  p->timeout = timeout;
  p->nvrtc_path = nvrtc_path;
  p->nworkers = count;
  return p;
}

/* Starts workers while there are more jobs than workers that are or will be free for them. */
static bool keep_busy(mk_pool *p, mk_status *st) {
  int coming = 0;
  for (int i = 0; i < p->nworkers; i++) {
    worker *w = &p->workers[i];
    if (w->pid && w->job == IDLE && p->next < p->njobs) give_job(p, w);
    coming += w->pid && w->job == GREETING;
  }
  for (int i = 0; i < p->nworkers && coming < p->njobs - p->next; i++) {
    if (p->workers[i].pid) continue;
    if (!start_worker(p, &p->workers[i], st)) return false;
    coming++;
  }
  return true;
}

bool mk_pool_wait(mk_pool *p, mk_pool_event *e, mk_status *st) {
  *e = (mk_pool_event){0};
  if (!keep_busy(p, st)) return false;
  struct pollfd fds[p->nworkers];
  for (int i = 0; i < p->nworkers; i++) {
    const worker *w = &p->workers[i];
    fds[i] = (struct pollfd){.fd = w->pid && w->job != IDLE ? w->fd : -1, .events = POLLIN};
  }
  poll(fds, (nfds_t)p->nworkers, WAIT_MS); /* an interrupted wait is just a short one */
  for (int i = 0; i < p->nworkers; i++) {
    worker *w = &p->workers[i];
    if (!w->pid || w->job == IDLE || (!fds[i].revents && mk_now() < w->deadline)) continue;
    if (!handle(p, w, e, st)) return false;
    if (e->kind != MK_POOL_NOTHING) return true;
  }
  return true;
}

void mk_pool_event_free(mk_pool_event *e) {
  for (int i = 0; i < MK_MESSAGE_PARTS; i++) free(e->parts[i]);
  memset(e->parts, 0, sizeof e->parts);
}

void mk_pool_close(mk_pool *p) {
  if (!p) return;
  for (int i = 0; i < p->nworkers; i++) end_worker(&p->workers[i], NULL);
  free(p);
}
