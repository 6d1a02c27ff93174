/* moonkiln compile-worker: serves the compiling process on standard input, which is a socket. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cli/commands.h"
#include "runtime/gpu/worker.h"

int cmd_compile_worker(int argc, char **argv) {
  struct stat input;
  if (fstat(STDIN_FILENO, &input) || !S_ISSOCK(input.st_mode)) {
    fprintf(stderr, "moonkiln: compile-worker is started by moonkiln itself, it is of no use by hand\n");
    return 2;
  }
  /* Not through exit: NVRTC's own cleaning up is slow, and nothing else is open. */
  _exit(mk_worker_main(STDIN_FILENO, argc > 1 && argv[1][0] ? argv[1] : NULL));
}
