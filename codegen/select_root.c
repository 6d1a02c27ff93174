/* Templates as candidates: the problem that a sidecar sees, and the launch made of its answer. */
#include <string.h>

#include "codegen/planner.h"

/* ---- problems */

static int64_t stride_of(const mk_view *v, int dim) {
  mk_digit d;
  return mk_view_joined(v, dim, dim + 1, &d) ? d.stride : 0;
}

static void matmul_problem(const mk_flow *f, int root, mk_problem *p) {
  const mk_node *n = &f->g->nodes[f->units[root].node];
  int a, b;
  const mk_view *va = mk_unit_arg(f, root, 0, &a), *vb = mk_unit_arg(f, root, 1, &b);
  const mk_node *na = &f->g->nodes[a];
  int64_t k = na->dims[na->rank - 1], m = mk_node_count(na) / k;
  mk_digit rows, cols;
  bool spaced = mk_view_joined(va, 0, va->rank - 1, &rows);
  mk_problem_int(p, "m", m);
  mk_problem_int(p, "n", n->dims[n->rank - 1]);
  mk_problem_int(p, "k", k);
  mk_problem_text(p, "dtype", mk_dtype_name(na->dtype));
  mk_problem_bool(p, "tf32", n->attr.tf32);
  mk_problem_int(p, "lda", spaced && rows.stride ? rows.stride : k);
  bool many = mk_view_joined(vb, 0, 1, &cols) && cols.stride;
  mk_problem_int(p, "ldb", many ? cols.stride : k);
}

static void conv_problem(const mk_flow *f, int root, mk_problem *p) {
  const mk_node *n = &f->g->nodes[f->units[root].node];
  int x, w;
  mk_unit_arg(f, root, 0, &x);
  mk_unit_arg(f, root, 1, &w);
  const mk_node *nx = &f->g->nodes[x], *nw = &f->g->nodes[w];
  static const char *const out[] = {"to", "ho", "wo"}, *const in[] = {"ti", "hi", "wi"}, *const taps[] = {"kt", "kh", "kw"},
                           *const pad[] = {"pad_t", "pad_h", "pad_w"};
  for (int i = 0; i < 3; i++) {
    mk_problem_int(p, out[i], n->dims[i]);
    mk_problem_int(p, in[i], nx->dims[i]);
    mk_problem_int(p, taps[i], nw->dims[1 + i]);
    mk_problem_int(p, pad[i], n->attr.pad[2 * i]);
  }
  mk_problem_int(p, "cin", nx->dims[3]);
  mk_problem_int(p, "cout", n->dims[3]);
  mk_problem_int(p, "upsample", mk_conv_upsamples(f, f->units[root].node) ? 2 : 1);
  mk_problem_text(p, "dtype", mk_dtype_name(nx->dtype));
  mk_problem_bool(p, "tf32", n->attr.tf32);
  mk_problem_int(p, "m", mk_dims_count(n->dims, 3));
  mk_problem_int(p, "n", n->dims[3]);
}

static void attention_problem(const mk_flow *f, int root, mk_problem *p) {
  const mk_node *n = &f->g->nodes[f->units[root].node];
  static const char *const names[3][3] = {
      {"q_token", "q_head", "q_batch"}, {"k_token", "k_head", "k_batch"}, {"v_token", "v_head", "v_batch"}};
  int id[3], r = n->rank;
  for (int i = 0; i < 3; i++) {
    const mk_view *v = mk_unit_arg(f, root, i, &id[i]);
    mk_problem_int(p, names[i][0], stride_of(v, r - 3));
    mk_problem_int(p, names[i][1], stride_of(v, r - 2));
    mk_problem_int(p, names[i][2], r == 4 ? stride_of(v, 0) : 0);
  }
  const mk_node *k = &f->g->nodes[id[1]];
  mk_problem_int(p, "batch", r == 4 ? n->dims[0] : 1);
  mk_problem_int(p, "sq", n->dims[r - 3]);
  mk_problem_int(p, "sk", k->dims[r - 3]);
  mk_problem_int(p, "heads", n->dims[r - 2]);
  mk_problem_int(p, "head_dim", n->dims[r - 1]);
  mk_problem_float(p, "scale", (double)n->attr.scale);
  mk_problem_bool(p, "causal", n->attr.causal);
  mk_problem_text(p, "dtype", mk_dtype_name(k->dtype));
  int bias_rank = n->attr.has_bias ? f->g->nodes[n->args[3]].rank : 0;
  mk_problem_text(p, "bias_mode", bias_rank == 3 ? "full" : bias_rank == 2 ? "relative" : "none");
  mk_problem_bool(p, "has_kv_len", n->attr.has_kv_len);
}

void mk_root_problem(const mk_flow *f, int root, const mk_body *b, mk_problem *out) {
  mk_op op = f->g->nodes[f->units[root].node].op;
  *out = (mk_problem){.op = mk_op_name(op), .row_epilogue = b && b->reduces};
  for (int i = 0; b && i < b->naccesses && out->nout < 16; i++)
    if (b->accesses[i].store) out->out[out->nout++] = b->accesses[i].dtype;
  if (op == MK_OP_MATMUL)
    matmul_problem(f, root, out);
  else if (op == MK_OP_CONV)
    conv_problem(f, root, out);
  else
    attention_problem(f, root, out);
}

double mk_root_flop(const mk_grouping *gr, const mk_cluster *c) {
  if (c->root < 0) return 0;
  const mk_graph *g = gr->f->g;
  const mk_node *n = &g->nodes[gr->f->units[c->root].node], *second = &g->nodes[n->args[1]];
  double count = (double)mk_node_count(n);
  if (n->op == MK_OP_MATMUL) return 2 * count * (double)second->dims[1];
  if (n->op == MK_OP_CONV) return 2 * count * (double)mk_dims_count(second->dims + 1, 4);
  return 4 * count * (double)second->dims[second->rank - 3] * (n->attr.causal ? 0.5 : 1);
}

const char *mk_root_text(mk_planner *p, const mk_grouping *gr, const mk_cluster *c) {
  const mk_node *n = &p->g->nodes[gr->f->units[c->root].node];
  mk_text t = {0};
  char dims[128];
  mk_text_add(&t, mk_op_name(n->op));
  for (int i = 0; i < n->nargs; i++) {
    const mk_node *a = &p->g->nodes[n->args[i]];
    mk_text_addf(&t, "%s %s %s", i ? " by" : " of", mk_dtype_name(a->dtype), mk_dims_str(a->dims, a->rank, dims, sizeof dims));
  }
  const char *s = mk_strdup(p->temp, mk_text_str(&t));
  mk_text_free(&t);
  return s;
}

/* ---- launches */

static const char *const operand_names[MK_OP_COUNT][5] = {
    [MK_OP_MATMUL] = {"a", "b"}, [MK_OP_CONV] = {"x", "w"}, [MK_OP_ATTENTION] = {"q", "k", "v", "bias", "kv_len"}};

/* The operand's number, or -1. An attention without bias has its key length in the bias' place. */
static int operand_index(const mk_node *n, const char *name) {
  for (int i = 0; i < 5 && operand_names[n->op][i]; i++) {
    if (strcmp(operand_names[n->op][i], name) != 0) continue;
    if (n->op != MK_OP_ATTENTION || i < 3) return i;
    if (i == 3) return n->attr.has_bias ? 3 : -1;
    return n->attr.has_kv_len ? n->nargs - 1 : -1;
  }
  return -1;
}

static bool is_operand(const mk_node *n, const char *name) {
  for (int i = 0; i < 5 && operand_names[n->op][i]; i++)
    if (!strcmp(operand_names[n->op][i], name)) return true;
  return false;
}

static mk_ref operand_ref(const mk_planner *p, const mk_draft *d, int root, int k) {
  int node;
  const mk_view *v = mk_unit_arg(d->gr->f, root, k, &node);
  return mk_locate(p, d, v->source, v->offset, d->gr->f->g->nodes[node].dtype);
}

static bool bind_named(mk_planner *p, const mk_draft *d, const mk_cluster *c, const mk_problem *problem, const mk_choice *choice,
                       const mk_field *field, mk_arg *arg) {
  const mk_node *n = &d->gr->f->g->nodes[d->gr->f->units[c->root].node];
  *arg = (mk_arg){.kind = field->kind, .offset = field->offset};
  if (field->kind == MK_ARG_TMAP) {
    for (int i = 0; i < choice->ntmaps; i++) {
      int k = strcmp(choice->tmaps[i].field, field->name) ? -1 : operand_index(n, choice->tmaps[i].operand);
      if (k < 0) continue;
      mk_tmap *map = MK_NEW(p->arena, mk_tmap);
      *map = choice->tmaps[i].map;
      arg->tmap = map;
      arg->ref = operand_ref(p, d, c->root, k);
      return true;
    }
  } else if (field->kind == MK_ARG_PTR && is_operand(n, field->name)) {
    int k = operand_index(n, field->name);
    if (k >= 0)
      arg->ref = operand_ref(p, d, c->root, k);
    else
      arg->kind = MK_ARG_I64; /* an operand this problem does not have: a null pointer */
    return true;
  } else if (field->kind != MK_ARG_PTR) {
    const mk_fact *fact = mk_problem_fact(problem, field->name);
    if (fact && fact->kind != MK_FACT_TEXT) {
      arg->i = fact->i;
      arg->f = fact->kind == MK_FACT_FLOAT ? (float)fact->f : (float)fact->i;
      return true;
    }
  }
  mk_fail(p->st, MK_EINPUT, "template %s: params has '%s', which is neither an operand nor a number of a %s", choice->shown,
          field->name, problem->op);
  return false;
}

static mk_memo *template_kernel(mk_planner *p, const mk_work *w, const mk_choice *c) {
  const mk_body *b = w->body;
  mk_text key = {0};
  mk_memo *m;
  mk_text_add(&key, c->label);
  mk_text_add(&key, "\n");
  mk_text_add(&key, c->constants);
  mk_text_add(&key, "\n");
  mk_body_key(b, &key);
  if (w->prologue) mk_body_key(w->prologue->body, &key);
  if (!mk_memo_find(p, mk_text_str(&key), &m)) {
    mk_text hook = {0}, text = {0};
    mk_fields fields = {0};
    for (int i = 0; i < c->nfields; i++) {
      mk_field f = c->fields[i];
      if (f.kind == MK_ARG_PTR) f.type = "const T *";
      mk_fields_add(&fields, p->arena, f);
    }
    bool ok = true;
    if (w->prologue) mk_emit_prologue(w->prologue->body, &fields, p->arena, &hook);
    if (b->reduces)
      ok = mk_emit_epilogue_row(b, &fields, p->arena, &hook);
    else if (c->fetches)
      mk_emit_epilogue_apart(b, &fields, p->arena, &hook);
    else
      mk_emit_epilogue(b, &fields, p->arena, &hook);
    if (ok) {
      mk_fields_layout(&fields);
      mk_text_addf(&text, "/* %s */\n%sconstexpr bool ROW_EPILOGUE = MK_ROW_EPILOGUE;\n\n", c->label, c->constants);
      mk_fields_print(&fields, &text);
      mk_text_add_n(&text, mk_text_str(&hook), hook.len);
      mk_text_add(&text, "\n");
      mk_text_add(&text, c->code);
      m->fields = fields;
      m->kernel = mk_add_kernel(p, c->name, b->reduces ? "#define MK_ROW_EPILOGUE 1\n" : "#define MK_ROW_EPILOGUE 0\n",
                                mk_text_str(&text), c->min_arch, c->arch_specific);
    }
    mk_text_free(&hook);
    mk_text_free(&text);
  }
  mk_text_free(&key);
  return m;
}

/* False: there is no kernel, or the status is set. */
static bool template_candidate(mk_planner *p, const mk_draft *d, const mk_work *w, const mk_problem *problem, mk_choice *ch,
                               mk_candidate *out) {
  const mk_cluster *c = &d->gr->clusters[w->cluster];
  if (!mk_sidecars_settle(p->sidecars, problem, ch, p->st)) return false;
  const mk_memo *m = template_kernel(p, w, ch);
  if (m->kernel < 0) return false;
  mk_arg *args = MK_NEW_ARRAY(p->arena, mk_arg, m->fields.n);
  mk_bind_fields(p, d, w->body, false, &m->fields, args);
  if (w->prologue) mk_bind_fields(p, w->prologue->d, w->prologue->body, true, &m->fields, args);
  for (int j = 0; j < m->fields.n; j++)
    if (m->fields.items[j].what == MK_FIELD_NAMED && !bind_named(p, d, c, problem, ch, &m->fields.items[j], &args[j]))
      return false;
  mk_launch *launch = MK_NEW(p->arena, mk_launch);
  *launch = (mk_launch){.kind = MK_LAUNCH_KERNEL,
                        .kernel = m->kernel,
                        .smem = ch->smem,
                        .param_bytes = m->fields.bytes,
                        .nargs = m->fields.n,
                        .args = args};
  memcpy(launch->grid, ch->grid, sizeof launch->grid);
  launch->block[0] = ch->block;
  launch->block[1] = launch->block[2] = 1;
  launch->cluster[0] = ch->cluster;
  launch->cluster[1] = launch->cluster[2] = 1;
  *out = (mk_candidate){
      .label = mk_strdup(p->arena, ch->label), .nlaunches = 1, .launches = launch, .cost = ch->cost, .own = ch->own};
  return true;
}

static bool has_precedent(const mk_planner *p, const mk_work *w, const mk_choice *ch, double cheapest) {
  const char *label = w->realises ? mk_printf(p->temp, "%s, %s", w->realises, ch->label) : ch->label;
  return mk_has_precedent(p, label, ch->cost, cheapest);
}

static mk_problem problem_of(const mk_draft *d, const mk_work *w) {
  mk_problem problem;
  mk_root_problem(d->gr->f, d->gr->clusters[w->cluster].root, w->body, &problem);
  if (w->prologue) {
    problem.prologue = true;
    mk_problem_int(&problem, "prologue_bytes", (int64_t)mk_body_bytes_read(w->prologue->body));
  }
  return problem;
}

int mk_template_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out, int max) {
  mk_choice *choices;
  const mk_problem problem = problem_of(d, w);
  int n = mk_sidecars_choose(p->sidecars, &problem, &choices, max, p->st), made = 0;
  for (int i = 0; i < n && !mk_failed(p->st); i++) made += template_candidate(p, d, w, &problem, &choices[i], &out[made]);
  return made;
}

int mk_precedent_candidates(mk_planner *p, const mk_draft *d, const mk_work *w, mk_candidate *out, int but) {
  mk_choice *few, *rest;
  const mk_problem problem = problem_of(d, w);
  int made = 0, n = p->nknown ? mk_sidecars_choose(p->sidecars, &problem, &few, MK_MAX_CANDIDATES, p->st) : 0;
  int nrest = n > 0 ? mk_sidecars_rest(p->sidecars, &problem, &rest, p->st) : 0;
  for (int i = but < n ? but : n; i < n + nrest && made < MK_MAX_PRECEDENTS && !mk_failed(p->st); i++) {
    mk_choice *ch = i < n ? &few[i] : &rest[i - n];
    if (has_precedent(p, w, ch, few[0].cost)) made += template_candidate(p, d, w, &problem, ch, &out[made]);
  }
  return made;
}
