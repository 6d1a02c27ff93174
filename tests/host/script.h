/* For tests of the back end: graphs from Lua text or files, and plans of them. */
#ifndef MK_TESTS_SCRIPT_H
#define MK_TESTS_SCRIPT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/graph.h"
#include "codegen/plan.h"

static inline mk_graph *graph_of_file(const char *path, const char *params, mk_status *st) {
  mk_graph *g = mk_graph_from_script(&(mk_script_options){.path = path, .params_json = params}, st);
  if (g && mk_optimize(g, st)) return g;
  mk_graph_free(g);
  return NULL;
}

static inline mk_graph *graph_of(const char *lua, mk_status *st) {
  char path[] = "/tmp/graph_XXXXXX.lua";
  int fd = mkstemps(path, 4);
  bool ok = fd >= 0 && write(fd, lua, strlen(lua)) == (ssize_t)strlen(lua);
  if (fd >= 0) close(fd);
  mk_graph *g = ok ? graph_of_file(path, NULL, st) : NULL;
  unlink(path);
  return g;
}

static inline mk_plan_options options_for(int arch) {
  return (mk_plan_options){.arch = arch, .templates = "templates", .cublaslt = true};
}

static inline const mk_program *program_of(const mk_plan *p, const char *name) {
  for (int i = 0; i < p->nprograms; i++)
    if (!strcmp(p->programs[i].name, name)) return &p->programs[i];
  return NULL;
}

static inline int groups_in(const mk_plan *p, const char *program) {
  const mk_program *g = program_of(p, program);
  int n = 0;
  for (int i = 0; i < g->nsteps; i++) n += g->steps[i].kind == MK_STEP_GROUP;
  return n;
}

static inline const mk_group *group_at(const mk_plan *p, const char *program, int index) {
  const mk_program *g = program_of(p, program);
  for (int i = 0; i < g->nsteps; i++)
    if (g->steps[i].kind == MK_STEP_GROUP && index-- == 0) return &p->groups[g->steps[i].index];
  return NULL;
}

static inline const mk_binding *binding_of(const mk_binding *list, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (!strcmp(list[i].name, name)) return &list[i];
  return NULL;
}

/* The emitted part of a kernel: what follows the shared device code. */
static inline const char *emitted_part(const char *source) {
  const char *at = source;
  for (const char *next = source; (next = strstr(next, "\n/* A")); next++)
    if (!strncmp(next, "\n/* A row program", 17) || !strncmp(next, "\n/* An elementwise program", 26)) at = next + 1;
  return at;
}

#endif
