/* Library matmuls: the whole group where its epilogue is one of the library's, else what it can of it in a workspace, and a row
 * program for the rest. */
#include <string.h>

#include "codegen/planner.h"

typedef struct mk_lt_match {
  bool whole; /* nothing is left for a row program */
  int last;   /* !whole: the instruction whose value the library makes */
  mk_lt_epilogue epilogue;
  mk_dtype d_type;
  int bias, residual, out; /* accesses of the body, or -1 */
} mk_lt_match;

static const int64_t MAX_WORKSPACE = (int64_t)1 << 29; /* beyond, scratch would be set by a candidate nobody may choose */

static int only_user(const mk_body *b, int inst) {
  int user = -1;
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    if (in->a != inst && in->b != inst && in->c != inst) continue;
    if (user >= 0) return -1;
    user = i;
  }
  return user;
}

static bool is_one_load(const mk_body *b, int inst) {
  return inst >= 0 && b->insts[inst].kind == MK_INST_LOAD && b->insts[inst].a < 0 && only_user(b, inst) >= 0;
}

/* Columns of stride 1 and, where rows are asked for, one row stride. */
static bool is_matrix(const mk_body *b, const mk_access *a, bool rows) {
  if (b->nrows > 1 || b->naxes - b->nrows != 1 || a->stride[b->naxes - 1] != 1) return false;
  return b->nrows == 0 || (rows ? a->stride[0] >= b->extent[b->naxes - 1] : a->stride[0] == 0);
}

static mk_lt_epilogue epilogue_of(const mk_lt_match *m, bool gelu) {
  return gelu ? (m->bias >= 0 ? MK_LT_GELU_BIAS : MK_LT_GELU) : m->bias >= 0 ? MK_LT_BIAS : MK_LT_NONE;
}

/* root [+ bias] [gelu] [+ residual] [cast], stored once. `part` is as much of it as ends in a cast, or the root. */
static bool match_whole(const mk_body *b, mk_dtype ab, mk_lt_match *m, mk_lt_match *part) {
  int at = b->root, used = 1, user;
  mk_dtype bias_type = MK_F32;
  bool gelu = false;
  *m = (mk_lt_match){.whole = true, .d_type = MK_F32, .bias = -1, .residual = -1, .out = -1};
  *part = (mk_lt_match){.last = b->root, .d_type = MK_F32, .bias = -1, .residual = -1, .out = -1};
  for (;; at = user, used++) {
    user = only_user(b, at);
    if (user < 0) return false;
    const mk_inst *in = &b->insts[user];
    if (in->kind == MK_INST_STORE) break;
    if (in->kind != MK_INST_OP || m->d_type != MK_F32) return false;
    if (in->op == MK_OP_CAST) {
      if (in->dtype != ab) return false;
      m->d_type = in->dtype;
      if (m->residual < 0 && (m->bias < 0 || bias_type == ab)) {
        *part = *m;
        part->whole = false;
        part->last = user;
        part->epilogue = epilogue_of(m, gelu);
      }
    } else if (in->op == MK_OP_GELU && !gelu && m->residual < 0) {
      gelu = true;
    } else if (in->op == MK_OP_ADD) {
      int other = in->a == at ? in->b : in->a;
      if (!is_one_load(b, other)) return false;
      const mk_access *x = &b->accesses[b->insts[other].access];
      if (m->bias < 0 && !gelu && m->residual < 0 && is_matrix(b, x, false) && (b->nrows > 0 || x->stride[0] == 1)) {
        m->bias = b->insts[other].access;
        bias_type = x->dtype;
      } else if (m->residual < 0 && !gelu && x->dtype == MK_F32 && is_matrix(b, x, true)) {
        m->residual = b->insts[other].access;
      } else {
        return false;
      }
      used++;
    } else {
      return false;
    }
  }
  m->out = b->insts[user].access;
  if (m->d_type == MK_F32 && b->insts[user].dtype == ab) m->d_type = ab; /* storing rounds */
  if (b->insts[user].dtype != m->d_type) return false;
  if (used + 1 != b->ninsts || !is_matrix(b, &b->accesses[m->out], true)) return false;
  if (m->residual >= 0 && m->d_type != MK_F32) return false; /* c and d have one type */
  if (m->bias >= 0 && bias_type != m->d_type) return false;  /* the library's rule */
  if (m->bias >= 0 && ab == MK_F16 && m->d_type == MK_F32) return false;
  m->epilogue = epilogue_of(m, gelu);
  return true;
}

static const mk_node *operand(const mk_draft *d, const mk_cluster *c, int k) {
  int node;
  mk_unit_arg(d->gr->f, c->root, k, &node);
  return &d->gr->f->g->nodes[node];
}

/* The group is one sum with a residual in memory, which the library may add in place of a row program. */
static const mk_residual *match_residual(mk_planner *p, const mk_draft *d, const mk_work *w) {
  const mk_grouping *gr = d->gr;
  const mk_cluster *c = &gr->clusters[w->cluster];
  mk_residual *r = MK_NEW(p->temp, mk_residual);
  int stored = -1;
  for (int i = 0; i < c->nmembers; i++) {
    if (gr->f->units[c->members[i].unit].copy || gr->f->units[c->members[i].unit].move) return NULL;
    if (!mk_is_stored(gr, c->members[i].unit)) continue;
    if (stored >= 0) return NULL;
    stored = gr->f->units[c->members[i].unit].node;
  }
  if (stored < 0 || gr->f->g->nodes[stored].dtype != MK_F32 || !mk_match_residual(gr->f->g, stored, r)) return NULL;
  const mk_node *x = &gr->f->g->nodes[r->x];
  return r->matmul == gr->f->units[c->root].node && x->dtype == MK_F32 ? r : NULL;
}

/* The library loads its kernels at their first use: on an H200 0.15 s for the text encoder's, which then saves 1.3 ms a prompt.
 * What does not run again and again is left to templates. */
void mk_lt_plan(mk_planner *p, mk_draft *d, mk_work *w) {
  const mk_cluster *c = &d->gr->clusters[w->cluster];
  const mk_flow *f = d->gr->f;
  if (!p->options->cublaslt || d->rate != MK_RATE_STEP || c->root < 0 || f->g->nodes[f->units[c->root].node].op != MK_OP_MATMUL)
    return;
  mk_lt_match *m = MK_NEW(p->temp, mk_lt_match), part;
  const mk_node *a = operand(d, c, 0);
  mk_problem problem;
  mk_root_problem(f, c->root, w->body, &problem);
  int64_t unit = 16 / (int64_t)mk_dtype_size(a->dtype); /* the library's fast paths want 16-byte rows */
  static const char *const lengths[] = {"k", "lda", "ldb", "n"};
  for (int i = 0; i < 4; i++)
    if (mk_problem_fact(&problem, lengths[i])->i % unit) return;
  if (!match_whole(w->body, a->dtype, m, &part)) {
    if (w->body->reduces) return;
    *m = part;
    int64_t made = mk_body_rows(w->body) * mk_body_cols(w->body) * (int64_t)mk_dtype_size(m->d_type), bytes = 0;
    bool fits = made <= MAX_WORKSPACE;
    w->residual = match_residual(p, d, w);
    if (w->residual) bytes = mk_residual_workspace(d, w->residual);
    if (fits && made > bytes) bytes = made;
    if (bytes) w->workspace = mk_new_workspace(p, d, bytes);
    if (!fits) return;
  }
  w->lt = m;
}

int mk_lt_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out, int max) {
  if (!w->lt || max < 1) return 0;
  const mk_lt_match *m = w->lt;
  const mk_cluster *c = &d->gr->clusters[w->cluster];
  const mk_body *b = w->body;
  mk_problem problem;
  mk_root_problem(d->gr->f, c->root, b, &problem);
  mk_lt *lt = MK_NEW(p->arena, mk_lt);
  mk_launch *launches = MK_NEW_ARRAY(p->arena, mk_launch, 2);
  int node;
  *lt = (mk_lt){.ab_type = operand(d, c, 0)->dtype,
                .c_type = m->d_type,
                .d_type = m->d_type,
                .bias_type = m->d_type,
                .epilogue = m->epilogue};
  lt->m = mk_problem_fact(&problem, "m")->i;
  lt->n = mk_problem_fact(&problem, "n")->i;
  lt->k = mk_problem_fact(&problem, "k")->i;
  lt->lda = mk_problem_fact(&problem, "lda")->i;
  lt->ldb = mk_problem_fact(&problem, "ldb")->i;
  lt->tf32 = mk_problem_fact(&problem, "tf32")->i != 0;
  lt->ldc = lt->ldd = lt->n;
  const mk_view *va = mk_unit_arg(d->gr->f, c->root, 0, &node), *vb = mk_unit_arg(d->gr->f, c->root, 1, &node);
  lt->a = mk_locate(p, d, va->source, va->offset, lt->ab_type);
  lt->b = mk_locate(p, d, vb->source, vb->offset, lt->ab_type);
  double seconds = 2.0 * (double)lt->m * (double)lt->n * (double)lt->k;
  bool tensor = lt->ab_type != MK_F32 || lt->tf32;
  seconds /= tensor ? p->target.tensor_tflops * 1e12 * (lt->ab_type == MK_F32 ? 0.4 : 0.75) : p->target.simt_tflops * 1e12 * 0.75;
  double bytes = (double)(lt->m + lt->n) * (double)lt->k * (double)mk_dtype_size(lt->ab_type) +
                 (double)lt->m * (double)lt->n * (double)mk_dtype_size(lt->d_type);
  double traffic = bytes / (p->target.copy_tbs * 1e12);
  seconds = (seconds > traffic ? seconds : traffic) + 4e-6;
  if (m->residual >= 0)
    seconds += 0.9 * (double)lt->m * (double)lt->n * 4 / (p->target.copy_tbs * 1e12); /* its reads do not hide */
  launches[0] = (mk_launch){.kind = MK_LAUNCH_LT, .lt = lt};
  if (m->bias >= 0) lt->bias = mk_locate(p, d, b->accesses[m->bias].buffer, b->accesses[m->bias].offset, m->d_type);
  if (m->whole) {
    const mk_access *o = &b->accesses[m->out];
    lt->d = mk_locate(p, d, o->buffer, o->offset, o->dtype);
    if (b->nrows) lt->ldd = o->stride[0];
    lt->c = lt->d;
    lt->ldc = lt->ldd;
    if (m->residual >= 0) {
      const mk_access *r = &b->accesses[m->residual];
      lt->beta = 1;
      lt->c = mk_locate(p, d, r->buffer, r->offset, r->dtype);
      if (b->nrows) lt->ldc = r->stride[0];
    }
    out[0] = (mk_candidate){.label = "cublaslt", .nlaunches = 1, .launches = launches, .cost = seconds};
    return 1;
  }
  lt->c = lt->d = mk_locate(p, d, w->workspace, 0, m->d_type);
  const mk_body *rest = mk_body_from_memory(b, m->last, w->workspace, m->d_type, p->temp);
  mk_body *flat = MK_NEW(p->temp, mk_body);
  *flat = *rest;
  flat->nrows = flat->naxes; /* nothing reduces: all axes are alike */
  const mk_body *lanes = mk_body_lanes(flat, mk_lane_count(flat), p->temp);
  mk_row_shape shape;
  mk_row_shapes(lanes, &shape, 1);
  if (!mk_row_launch(p, d, lanes, &shape, &launches[1])) return 0;
  out[0] = (mk_candidate){
      .label = "cublaslt, then a row program", .nlaunches = 2, .launches = launches, .cost = seconds + mk_row_cost(p, rest)};
  return 1;
}
