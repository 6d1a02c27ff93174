/* The moonkiln program: names a command, hands it the rest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary; /* NULL: not for people */
} commands[] = {
    {"generate", cmd_generate, "prompt in, video out"},
    {"run", cmd_run, "any graph on tensors from safetensors files"},
    {"emit", cmd_emit, "what was made of a graph: IR, groups, plan, CUDA, compiler report"},
    {"compile", cmd_compile, "fill the kernel cache ahead of time, no GPU needed"},
    {"bench", cmd_bench, "time of every step of a plan"},
    {"profile", cmd_profile, "where the time of a program goes, and how far each part is from the card's limits"},
    {"tune", cmd_tune, "find this GPU's fastest kernels ahead of time; what was found"},
    {"cache", cmd_cache, "list, verify or clear the kernel cache"},
    {"info", cmd_info, "GPU, driver and libraries found, what is missing and how to get it"},
    {"compile-worker", cmd_compile_worker, NULL},
};

static void usage(FILE *out) {
  fprintf(out, "usage: moonkiln COMMAND [arguments]\n\ncommands:\n");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (commands[i].summary) fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fprintf(out, "\nmoonkiln COMMAND --help tells more. Environment:\n");
  int count;
  const mk_env_switch *switches = mk_env_switches(&count);
  for (int i = 0; i < count; i++) fprintf(out, "  %-26s %s\n", switches[i].name, switches[i].meaning);
}

/* Threads that wait for each other spin for a moment only, then sleep: on a machine that has other work, spinning takes the cores
 * from those that are waited for, and the CPU backend becomes ten times slower. Set before OpenMP reads it, which is before main;
 * whoever sets either variable knows better. */
__attribute__((constructor(101))) static void wait_politely(void) {
  if (!getenv("OMP_WAIT_POLICY")) setenv("GOMP_SPINCOUNT", "3000", 0);
}

/* Kernels follow each other on one stream, and copies have queues of their own: of the eight queues that the driver makes, which
 * takes it 70 ms, one is enough. Whoever sets the variable knows better. */
static void ask_for_one_queue(void) { setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1", 0); }

int main(int argc, char **argv) {
  if (argc < 2) {
    usage(stderr);
    return 2;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
    usage(stdout);
    return 0;
  }
  mk_status st = {0};
  ask_for_one_queue();
  mk_timeline("main");
  if (!mk_env_check(&st)) return mk_exit_code(&st);
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
  fprintf(stderr, "moonkiln: there is no command '%s'; see moonkiln --help\n", argv[1]);
  return 2;
}
