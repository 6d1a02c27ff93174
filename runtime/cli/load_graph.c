#include "runtime/cli/load_graph.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/graph.h"
#include "runtime/base/env.h"
#include "runtime/base/file.h"
#include "runtime/gpu/compiler.h"

static void no_memory(mk_status *st) { mk_fail(st, MK_ENOMEM, "out of host memory"); }

static json_t *parse_set_value(const char *text, mk_status *st) {
  json_error_t e;
  if (text[0] == '@') {
    size_t bytes;
    char *content = mk_file_read(text + 1, &bytes, st);
    if (!content) return NULL;
    json_t *v = json_loadb(content, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    free(content);
    if (!v) mk_fail(st, MK_EINPUT, "%s:%d:%d: not valid JSON: %s", text + 1, e.line, e.column, e.text);
    return v;
  }
  json_t *v = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
  if (v) return v;
  if (json_error_code(&e) == json_error_out_of_memory) return no_memory(st), NULL;
  if (text[0] == '{' || text[0] == '[') return mk_fail(st, MK_EINPUT, "'%s' is not valid JSON: %s", text, e.text), NULL;
  v = json_string(text);
  if (!v) mk_fail(st, MK_EINPUT, "'%s' is not valid UTF-8", text);
  return v;
}

static bool apply_set(json_t *params, const char *item, mk_status *st) {
  const char *eq = strchr(item, '=');
  if (!eq || eq == item) return mk_fail(st, MK_EINPUT, "--set %s: give KEY=VALUE", item), false;
  json_t *value = parse_set_value(eq + 1, st), *table = params;
  if (!value) return mk_fail_context(st, "--set %.*s", (int)(eq - item), item), false;
  const char *key = item;
  for (const char *dot; (dot = memchr(key, '.', (size_t)(eq - key))); key = dot + 1) {
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
    json_t *inner = json_object_get(table, name);
    if (!json_is_object(inner)) {
      inner = json_object();
      json_object_set_new(table, name, inner);
    }
    table = inner;
  }
  char name[128];
  snprintf(name, sizeof name, "%.*s", (int)(eq - key), key);
  if (json_object_set_new(table, name, value)) return mk_fail(st, MK_EINPUT, "--set %s: the key is not valid", item), false;
  return true;
}

static char *params_from_sets(const mk_text_list *sets, mk_status *st) {
  json_t *params = json_object();
  char *text = NULL;
  bool ok = true;
  for (int i = 0; ok && i < sets->count; i++) ok = apply_set(params, sets->items[i], st);
  if (ok) text = json_dumps(params, JSON_COMPACT);
  json_decref(params);
  if (!text) no_memory(st); /* unless it is said already */
  return text;
}

mk_graph *mk_cli_load_graph(const char *script, const mk_text_list *sets, const mk_source *weights, bool raw, mk_status *st) {
  char *params = params_from_sets(sets, st);
  if (!params) return NULL;
  mk_script_options options = {.path = script, .params_json = params, .weights = weights};
  mk_graph *g = mk_graph_from_script(&options, st);
  free(params);
  if (g && !raw && !mk_optimize(g, st)) {
    mk_graph_free(g);
    g = NULL;
  }
  return g;
}

bool mk_cli_plan_options(int arch, mk_arena *arena, mk_plan_options *out, mk_status *st) {
  char path[PATH_MAX];
  if (!mk_env_data_path("templates", path, st)) return false;
  *out = (mk_plan_options){.arch = arch, .templates = mk_strdup(arena, path), .cublaslt = true};
  out->trial = mk_cli_trial(&(mk_trial_request){0}, arena);
  return true;
}

mk_trial mk_cli_trial(const mk_trial_request *r, mk_arena *arena) {
  const char *folders = NULL, *standing = mk_env_get()->templates;
  for (int i = 0; i < r->templates.count; i++)
    folders = folders ? mk_printf(arena, "%s:%s", folders, r->templates.items[i]) : r->templates.items[i];
  if (folders && standing) folders = mk_printf(arena, "%s:%s", folders, standing);
  return (mk_trial){.templates = folders ? folders : standing, .edited = r->load};
}

bool *mk_cli_wanted_kernels(const mk_plan *p, bool all, const char *pattern, mk_status *st) {
  bool *wanted = calloc((size_t)p->nkernels + 1, sizeof *wanted), any = false;
  if (!wanted) return mk_fail(st, MK_ENOMEM, "out of host memory"), NULL;
  for (int g = 0; g < p->ngroups; g++)
    for (int c = 0; c < p->groups[g].ncandidates; c++) {
      const mk_candidate *candidate = &p->groups[g].candidates[c];
      const mk_group *next = g + 1 < p->ngroups ? &p->groups[g + 1] : NULL;
      bool runs = c == p->groups[g].chosen && !(next && next->candidates[next->chosen].covers);
      for (int l = 0; (all || runs) && l < candidate->nlaunches; l++)
        if (candidate->launches[l].kind == MK_LAUNCH_KERNEL) wanted[candidate->launches[l].kernel] = true;
    }
  for (int k = 0; k < p->nkernels; k++) {
    wanted[k] = wanted[k] && (!pattern || strstr(p->kernels[k].name, pattern));
    any |= wanted[k];
  }
  if (any || !pattern) return wanted;
  free(wanted);
  mk_fail(st, MK_EINPUT, "--kernel %s: no kernel of this graph has that in its name; --stage plan lists them", pattern);
  return NULL;
}

bool mk_cli_parse_arch(const char *text, int *out, int max, int *count, mk_status *st) {
  *count = 0;
  for (const char *p = text; *p;) {
    char one[16];
    size_t length = strcspn(p, ",");
    snprintf(one, sizeof one, "%.*s", (int)(length < sizeof one ? length : sizeof one - 1), p);
    if (*count == max) return mk_fail(st, MK_EINPUT, "--arch %s: at most %d architectures", text, max), false;
    mk_status unknown = {0};
    if (!mk_arch_parse(one, &out[(*count)++], &unknown))
      return mk_fail(st, MK_EINPUT, "--arch %s: %s", text, unknown.message), false;
    p += length + (p[length] == ',');
  }
  return *count > 0 || (mk_fail(st, MK_EINPUT, "--arch is empty"), false);
}
