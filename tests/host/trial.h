/* Graphs on two backends with the same made-up values, and how far the results are apart. */
#ifndef MK_TESTS_TRIAL_H
#define MK_TESTS_TRIAL_H

#include <dirent.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/plan.h"
#include "runtime/base/hash.h"
#include "runtime/session.h"

static char templates[PATH_MAX]; /* a folder without the tensor-core templates */

static inline int make_templates(void **state) {
  (void)state;
  char here[PATH_MAX], from[2 * PATH_MAX + 64], to[PATH_MAX + 300];
  strcpy(templates, "/tmp/host_templates_XXXXXX");
  if (!mkdtemp(templates) || !getcwd(here, sizeof here)) return -1;
  DIR *dir = opendir("templates");
  if (!dir) return -1;
  for (struct dirent *d; (d = readdir(dir));) {
    if (d->d_name[0] == '.' || strstr(d->d_name, "mma")) continue;
    snprintf(from, sizeof from, "%s/templates/%s", here, d->d_name);
    snprintf(to, sizeof to, "%s/%s", templates, d->d_name);
    if (symlink(from, to)) return -1;
  }
  return closedir(dir);
}

static inline int remove_templates(void **state) {
  (void)state;
  char path[PATH_MAX + 300];
  DIR *dir = opendir(templates);
  for (struct dirent *d; dir && (d = readdir(dir));) {
    snprintf(path, sizeof path, "%s/%s", templates, d->d_name);
    unlink(path);
  }
  if (dir) closedir(dir);
  return rmdir(templates);
}

/* ---- made-up values: the same for every backend, decided by name */

typedef struct values {
  const mk_graph *g;
  const char *text; /* of the graph file, for its ranges */
  float noise;      /* by what part values are off, at most */
  float mean;       /* of the input x */
  mk_arena arena;
} values;

static inline void make_value(values *v, const mk_node *n, mk_tensor *t) {
  *t = (mk_tensor){
      .name = n->name, .where = "made-up values", .dtype = n->dtype, .rank = n->rank, .bytes = (size_t)mk_node_bytes(n)};
  memcpy(t->dims, n->dims, sizeof t->dims);
  char *data = mk_alloc(&v->arena, t->bytes);
  uint64_t seed = mk_hash64(n->name, strlen(n->name));
  int low = 0, high = 2;
  char key[128];
  snprintf(key, sizeof key, "-- range %s ", n->name);
  const char *range = strstr(v->text, key);
  if (range) sscanf(range + strlen(key), "%d %d", &low, &high);
  float scale = n->rate == MK_RATE_LOAD && n->rank > 1 ? 1 / sqrtf((float)mk_node_count(n) / (float)n->dims[0]) : 1;
  for (int64_t i = 0; i < mk_node_count(n); i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    float f = ((float)(seed >> 40) / (float)(1 << 24) - 0.5f) * 3.4f * scale;
    if (!strcmp(n->name, "x")) f += v->mean;
    f *= 1 + v->noise * (float)((int)(seed >> 20 & 255) - 128) / 128;
    if (n->dtype == MK_I32)
      ((int32_t *)(void *)data)[i] = low + (int32_t)((seed >> 33) % (uint64_t)(high - low));
    else
      mk_convert(data + i * (int64_t)mk_dtype_size(n->dtype), n->dtype, &f, MK_F32, 1);
  }
  t->data = data;
}

static inline bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  values *v = self;
  for (int i = 0; i < v->g->count; i++)
    if (v->g->nodes[i].op == MK_OP_INPUT && !strcmp(v->g->nodes[i].name, name)) {
      make_value(v, &v->g->nodes[i], out);
      return true;
    }
  mk_fail(st, MK_EINTERNAL, "no weight %s", name);
  return false;
}

/* ---- running both */

typedef struct run { /* outputs of each entry as it ran, one after the other, then the states */
  float *data[256];
  const mk_binding *what[256]; /* the plan's */
  int n;
} run;

static inline void free_run(run *r) {
  for (int i = 0; i < r->n; i++) free(r->data[i]);
  r->n = 0;
}

static inline void start(mk_session *s, values *v) {
  mk_status st = {0};
  mk_source source = {.self = v, .fetch = fetch};
  s->ops->load(s, &source, NULL, NULL, &st);
  for (int i = 0; i < v->g->count; i++) {
    const mk_node *n = &v->g->nodes[i];
    mk_tensor t;
    if (n->op != MK_OP_INPUT || n->rate == MK_RATE_LOAD) continue;
    make_value(v, n, &t);
    s->ops->write(s, &t, &st);
  }
  s->ops->run(s, "prompt", &st);
  assert_string_equal(st.message, "");
}

static inline void keep(mk_session *s, const mk_binding *b, run *out) {
  mk_status st = {0};
  size_t bytes = (size_t)mk_dims_count(b->dims, b->rank) * 4;
  assert_true(out->n < 256);
  out->what[out->n] = b;
  out->data[out->n] = malloc(bytes);
  s->ops->read(s, b->name, out->data[out->n++], bytes, &st);
  assert_string_equal(st.message, "");
}

static inline bool makes(const mk_graph *g, const char *entry, const char *output) {
  for (int i = 0; i < g->noutputs; i++)
    if (!strcmp(g->outputs[i].entry, entry) && !strcmp(g->outputs[i].name, output)) return true;
  return false;
}

static inline run run_all(mk_session *s, values *v, const mk_plan *p, const char *entries) {
  run out = {0};
  char list[256];
  start(s, v);
  snprintf(list, sizeof list, "%s", entries);
  for (char *rest = list, *entry; (entry = strsep(&rest, " "));) {
    mk_status st = {0};
    s->ops->run(s, entry, &st);
    assert_string_equal(st.message, "");
    for (int i = 0; i < p->noutputs; i++)
      if (makes(v->g, entry, p->outputs[i].name)) keep(s, &p->outputs[i], &out);
  }
  for (int i = 0; i < p->nstates; i++) keep(s, &p->states[i], &out);
  s->ops->close(s);
  return out;
}

static inline double error_of(const float *want, const float *have, const mk_binding *b) {
  double sum = 0, norm = 0;
  for (int64_t i = 0; i < mk_dims_count(b->dims, b->rank); i++) {
    double w = b->dtype == MK_I32 ? ((const int32_t *)(const void *)want)[i] : (double)want[i];
    double h = b->dtype == MK_I32 ? ((const int32_t *)(const void *)have)[i] : (double)have[i];
    double d = w == h ? 0 : w - h;
    sum += d * d;
    norm += w == h && isinf(w) ? 0 : w * w;
  }
  double e = sqrt(sum / (norm + DBL_MIN));
  return isnan(e) ? INFINITY : norm > 0 ? e : sqrt(sum);
}

#endif
