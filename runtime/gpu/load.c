/* The load program: weights stream from their source through the staging ring on the copy stream while groups prepare the ones
 * before on the main stream. */
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/gpu/executor.h"
#include "runtime/gpu/upload.h"

typedef struct loading {
  mk_gpu_session *s;
  const mk_source *source;
  mk_progress_fn progress;
  void *user;
  const char *what; /* the weight on its way */
  int64_t done, total;
  bool copies_pending;   /* on the copy stream, not yet waited for by the main stream */
  bool launches_pending; /* the other way round */
} loading;

static bool report(void *user, int64_t bytes) {
  loading *l = user;
  l->done += bytes;
  return !l->progress || l->progress(l->user, l->what, l->done, l->total);
}

/* What is enqueued on `later` from now on runs after all that is on `earlier`. */
static bool order(mk_gpu_device *d, CUstream earlier, CUstream later, mk_status *st) {
  return MK_CU(d->cu, st, cuEventRecord(d->order, earlier)) && MK_CU(d->cu, st, cuStreamWaitEvent(later, d->order, 0));
}

static bool check(const mk_binding *b, const mk_tensor *t, mk_status *st) {
  char want[96], have[96];
  bool same = t->rank == b->rank && !memcmp(t->dims, b->dims, sizeof *b->dims * (size_t)b->rank);
  const char *where = t->where ? t->where : "weights";
  if (!same) {
    mk_fail(st, MK_EINPUT, "%s: tensor %s has shape %s, the graph was made for %s", where, b->name,
            mk_dims_str(t->dims, t->rank, have, sizeof have), mk_dims_str(b->dims, b->rank, want, sizeof want));
  } else if ((t->dtype == MK_I32) != (b->dtype == MK_I32)) {
    mk_fail(st, MK_EINPUT, "%s: tensor %s is %s, the graph was made for %s", where, b->name, mk_dtype_name(t->dtype),
            mk_dtype_name(b->dtype));
  }
  return !mk_failed(st);
}

static bool upload(loading *l, const mk_binding *b, mk_status *st) {
  mk_gpu_session *s = l->s;
  mk_gpu_device *d = s->d;
  CUdeviceptr to = (b->ref.space == MK_SPACE_SCRATCH ? d->scratch.ptr : s->spaces[b->ref.space].ptr) + (CUdeviceptr)b->ref.offset;
  l->what = b->name;
  if (l->source->synthetic_seed) {
    l->launches_pending = true;
    if (mk_gpu_fill_synthetic(d, &s->fill, b, to, l->source->synthetic_seed, st) && report(l, b->bytes)) return true;
    mk_fail(st, MK_EINTERRUPTED, "stopped while weights were made");
    return false;
  }
  mk_tensor t;
  if (!l->source->fetch) {
    mk_fail(st, MK_EINPUT, "the graph reads weight '%s', and no weights were given", b->name);
    return false;
  }
  if (!l->source->fetch(l->source->self, b->name, &t, st)) {
    mk_fail(st, MK_EINPUT, "weights: there is no tensor %s", b->name);
    return false;
  }
  if (!check(b, &t, st)) return false;
  /* Scratch is used again and again: what still reads its old content goes first. */
  if (b->ref.space == MK_SPACE_SCRATCH && l->launches_pending) {
    if (!order(d, d->stream, d->copy_stream, st)) return false;
    l->launches_pending = false;
  }
  l->copies_pending = true;
  return mk_gpu_upload(d, d->copy_stream, to, b->dtype, t.data, t.dtype, mk_dims_count(b->dims, b->rank), report, l, st);
}

static bool run_steps(loading *l, const mk_program *p, mk_status *st) {
  mk_gpu_device *d = l->s->d;
  for (int i = 0; i < p->nsteps; i++) {
    if (p->steps[i].kind == MK_STEP_UPLOAD) {
      if (!upload(l, &l->s->plan->weights[p->steps[i].index], st)) return false;
      continue;
    }
    if (l->copies_pending && !order(d, d->copy_stream, d->stream, st)) return false;
    l->copies_pending = false;
    l->launches_pending = true;
    if (!mk_gpu_run_group(l->s, p->steps[i].index, st)) return false;
  }
  return true;
}

static bool upload_consts(mk_gpu_session *s, mk_status *st) {
  for (int i = 0; i < s->plan->nconsts; i++) {
    const struct mk_const_data *c = &s->plan->consts[i];
    CUdeviceptr to = s->spaces[c->ref.space].ptr + (CUdeviceptr)c->ref.offset;
    if (!mk_gpu_upload(s->d, s->d->stream, to, MK_BF16, c->data, MK_BF16, c->bytes / 2, NULL, NULL, st)) return false;
  }
  return true;
}

bool mk_gpu_load(mk_gpu_session *s, const mk_source *weights, mk_progress_fn progress, void *user, mk_status *st) {
  static const mk_source none; /* for a graph without weights */
  mk_gpu_device *d = s->d;
  loading l = {.s = s, .source = weights ? weights : &none, .progress = progress, .user = user};
  const mk_gpu_program *p = mk_gpu_find_program(s, "load");
  for (int i = 0; p && i < p->plan->nsteps; i++)
    if (p->plan->steps[i].kind == MK_STEP_UPLOAD) l.total += s->plan->weights[p->plan->steps[i].index].bytes;
  bool ok = mk_gpu_take_spaces(s, st) && mk_gpu_bind(s, st);
  if (ok && l.source->synthetic_seed) ok = mk_gpu_synthetic_open(d, &s->fill, &s->arena, st);
  /* The main stream may still use, in other sessions' programs, the scratch that the copy stream is about to write. */
  ok = ok && upload_consts(s, st) && order(d, d->stream, d->copy_stream, st) && (!p || run_steps(&l, p->plan, st));
  /* Nothing may be under way when this returns, whatever happened: the source's memory and the staging buffers are free again. */
  ok = MK_CU(d->cu, st, cuStreamSynchronize(d->copy_stream)) && ok;
  ok = mk_gpu_wait(d, st) && ok;
  s->loaded = ok;
  mk_timeline("%s: weights loaded", s->plan->name);
  return ok;
}
