/* Plans and groups in words. */
#include <inttypes.h>
#include <string.h>

#include "codegen/planner.h"

static const char *const space_names[] = {"load", "prompt", "state", "io", "scratch"};

static void add_ref(mk_ref r, mk_text *out) { mk_text_addf(out, "%s+%" PRId64, space_names[r.space], r.offset); }

static void add_binding(const char *what, const mk_binding *b, mk_text *out) {
  char dims[128];
  mk_text_addf(out, "  %s %s %s %s at ", what, b->name, mk_dtype_name(b->dtype),
               mk_dims_str(b->dims, b->rank, dims, sizeof dims));
  add_ref(b->ref, out);
  mk_text_add(out, "\n");
}

static void add_args(const mk_launch *l, mk_text *out) {
  for (int i = 0; i < l->nargs; i++) {
    const mk_arg *a = &l->args[i];
    mk_text_addf(out, " %u:", a->offset);
    if (a->kind == MK_ARG_PTR || a->kind == MK_ARG_TMAP) {
      if (a->kind == MK_ARG_TMAP) mk_text_add(out, "tmap ");
      add_ref(a->ref, out);
    } else if (a->kind == MK_ARG_F32) {
      mk_text_addf(out, "%g", (double)a->f);
    } else {
      mk_text_addf(out, "%" PRId64, a->i);
    }
  }
}

static void add_lt(const mk_lt *lt, mk_text *out) {
  static const char *const epilogues[] = {"", " bias", " gelu", " gelu_bias"};
  mk_text_addf(out, "m %" PRId64 " n %" PRId64 " k %" PRId64 " lda %" PRId64 " ldb %" PRId64 " ldd %" PRId64 " %s%s -> %s%s%s a ",
               lt->m, lt->n, lt->k, lt->lda, lt->ldb, lt->ldd, mk_dtype_name(lt->ab_type), lt->tf32 ? " tf32" : "",
               mk_dtype_name(lt->d_type), epilogues[lt->epilogue], lt->beta != 0 ? " + c" : "");
  add_ref(lt->a, out);
  mk_text_add(out, " b ");
  add_ref(lt->b, out);
  mk_text_add(out, " d ");
  add_ref(lt->d, out);
  if (lt->epilogue == MK_LT_BIAS || lt->epilogue == MK_LT_GELU_BIAS) {
    mk_text_add(out, " bias ");
    add_ref(lt->bias, out);
  }
  if (lt->beta != 0) {
    mk_text_add(out, " c ");
    add_ref(lt->c, out);
  }
}

static void add_launch(const mk_plan *p, const mk_launch *l, mk_text *out) {
  mk_text_add(out, "        ");
  switch (l->kind) {
    case MK_LAUNCH_KERNEL:
      mk_text_addf(out, "%s <<<%u %u %u, %u", p->kernels[l->kernel].name, l->grid[0], l->grid[1], l->grid[2], l->block[0]);
      if (l->smem) mk_text_addf(out, ", smem %u", l->smem);
      if (l->cluster[0] > 1) mk_text_addf(out, ", cluster %u", l->cluster[0]);
      mk_text_add(out, ">>>");
      add_args(l, out);
      break;
    case MK_LAUNCH_LT:
      mk_text_add(out, "matmul ");
      add_lt(l->lt, out);
      break;
    case MK_LAUNCH_COPY:
    case MK_LAUNCH_ZERO:
      mk_text_addf(out, "%s %" PRId64 " bytes to ", l->kind == MK_LAUNCH_COPY ? "copy" : "zero", l->bytes);
      add_ref(l->dst, out);
      if (l->kind == MK_LAUNCH_COPY) {
        mk_text_add(out, " from ");
        add_ref(l->src, out);
      }
      break;
  }
  mk_text_add(out, "\n");
}

static void add_group(const mk_plan *p, int index, mk_text *out) {
  const mk_group *g = &p->groups[index];
  mk_text_addf(out, "    group %d %s  %s", index, g->kind, g->name);
  if (g->flop > 0) mk_text_addf(out, "  %.4g GFLOP", g->flop * 1e-9);
  mk_text_addf(out, "  %.4g MB\n", g->bytes * 1e-6);
  for (int c = 0; c < g->ncandidates; c++) {
    const mk_candidate *k = &g->candidates[c];
    mk_text_addf(out, "      %s%s  %.4g us%s\n", c == g->chosen ? "* " : "  ", k->label, k->cost * 1e6,
                 k->covers ? " with the group before" : "");
    for (int i = 0; i < k->nlaunches; i++) add_launch(p, &k->launches[i], out);
  }
}

void mk_plan_print(const mk_plan *p, mk_text *out) {
  mk_text_addf(out, "plan %s for sm_%d: %d groups, %d kernels\n", p->name, p->arch, p->ngroups, p->nkernels);
  for (int i = 0; i < MK_SPACE_COUNT; i++) mk_text_addf(out, "  %s %" PRId64 " bytes\n", space_names[i], p->space_bytes[i]);
  for (int i = 0; i < p->ninputs; i++) add_binding("input", &p->inputs[i], out);
  for (int i = 0; i < p->nstates; i++) add_binding("state", &p->states[i], out);
  for (int i = 0; i < p->noutputs; i++) add_binding("output", &p->outputs[i], out);
  for (int i = 0; i < p->nprograms; i++) {
    const mk_program *g = &p->programs[i];
    mk_text_addf(out, "  program %s (%s rate)\n", g->name, mk_rate_name(g->rate));
    for (int s = 0; s < g->nsteps; s++) {
      if (g->steps[s].kind == MK_STEP_UPLOAD)
        add_binding("  upload", &p->weights[g->steps[s].index], out);
      else
        add_group(p, g->steps[s].index, out);
    }
  }
}

/* ---- groups with their nodes */

static void add_member(const mk_grouping *gr, const mk_member *m, mk_text *out) {
  const mk_graph *g = gr->f->g;
  const mk_unit *u = &gr->f->units[m->unit];
  const mk_node *n = &g->nodes[u->node];
  char dims[128];
  const char *what = u->state >= 0 ? "update" : u->copy ? "copy" : mk_op_name(n->op);
  mk_text_addf(out, "    %%%d %s %s %s", u->node, mk_dtype_name(n->dtype), mk_dims_str(n->dims, n->rank, dims, sizeof dims),
               what);
  for (int k = 0; k < n->nargs && !u->copy; k++) mk_text_addf(out, " %%%d", n->args[k]);
  if (u->state >= 0) mk_text_addf(out, " \"%s\"", g->nodes[u->state].name);
  if (mk_is_stored(gr, m->unit)) mk_text_add(out, "  stored");
  if (n->where) mk_text_addf(out, "   ; %s", n->where);
  mk_text_add(out, "\n");
}

void mk_groups_print(const mk_graph *g, const mk_plan_options *options, mk_text *out, mk_status *st) {
  mk_arena temp = {0};
  mk_planner p = {.g = g, .options = options, .arena = &temp, .temp = &temp, .st = st};
  p.target = mk_target_of(options);
  p.sidecars = mk_sidecars_open(options->templates, &options->trial, &p.target, st);
  p.flow = p.sidecars ? mk_flow_build(g, &temp, st) : NULL;
  for (int i = 0; p.flow && i < g->nentries + 2 && !mk_failed(st); i++) {
    mk_draft d = {.name = i == 0 ? "load" : i == 1 ? "prompt" : g->entries[i - 2], .rate = i < 2 ? (mk_rate)i : MK_RATE_STEP};
    mk_schedule(&p, &d);
    mk_find_sites(&p, &d);
    mk_text_addf(out, "program %s: %d groups\n", d.name, d.nwork);
    for (int w = 0; w < d.nwork; w++) {
      const mk_cluster *c = &d.gr->clusters[d.work[w].cluster];
      mk_text_addf(out, "  group %d %s\n", w, c->root >= 0 ? mk_op_name(g->nodes[p.flow->units[c->root].node].op) : "row");
      for (int m = 0; m < c->nmembers; m++) add_member(d.gr, &c->members[m], out);
      const mk_site *s = c->root >= 0 ? d.work[w].site : NULL;
      if (s)
        mk_text_addf(out, "    realisations with group %d: row kernel and matmul%s%s\n", w - 1,
                     s->folds ? ", folded modulation" : "", s->in_memory ? ", prologue" : "");
    }
  }
  mk_sidecars_close(p.sidecars);
  mk_arena_free(&temp);
}
