#include "runtime/cli/weights.h"

#include <stdlib.h>

#include "runtime/model/checkpoint.h"

struct mk_weights {
  mk_source source;
  int count;
  mk_checkpoint *parts[MK_LIST_MAX];
};

static bool describe(void *self, const char *name, mk_tensor *out) {
  mk_weights *w = self;
  for (int i = 0; i < w->count; i++) {
    const mk_source *s = mk_checkpoint_source(w->parts[i]);
    if (s->describe(s->self, name, out)) return true;
  }
  return false;
}

static bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  mk_weights *w = self;
  for (int i = 0; i < w->count; i++) {
    const mk_source *s = mk_checkpoint_source(w->parts[i]);
    mk_tensor t;
    if (s->describe(s->self, name, &t)) return s->fetch(s->self, name, out, st);
  }
  mk_fail(st, MK_EINPUT, "tensor '%s' is in none of the %d --weights given", name, w->count);
  return false;
}

mk_weights *mk_weights_open(const mk_text_list *paths, mk_status *st) {
  mk_weights *w = calloc(1, sizeof *w);
  if (!w) return mk_fail(st, MK_ENOMEM, "out of host memory"), NULL;
  w->source = (mk_source){.self = w, .describe = describe, .fetch = fetch};
  for (int i = 0; i < paths->count; i++) {
    w->parts[i] = mk_checkpoint_open(paths->items[i], st);
    if (!w->parts[i]) {
      mk_weights_close(w);
      return NULL;
    }
    w->count++;
  }
  return w;
}

void mk_weights_close(mk_weights *w) {
  if (!w) return;
  for (int i = 0; i < w->count; i++) mk_checkpoint_close(w->parts[i]);
  free(w);
}

const mk_source *mk_weights_source(mk_weights *w) { return w && w->count ? &w->source : NULL; }
