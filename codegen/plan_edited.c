/* Kernels that a person edited: NAME.cu of a folder in the place of the emitted kernel of that name. The launch stays as it was
 * planned, so the parameter struct must stay as it was emitted. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/planner.h"
#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"

static int find_kernel(const mk_plan *p, const char *name) {
  for (int k = 0; k < p->nkernels; k++)
    if (!strcmp(p->kernels[k].name, name)) return k;
  return -1;
}

/* Whether the two texts are equal up to the first "};", blanks aside. */
static bool same_struct(const char *a, const char *b) {
  for (;;) {
    while (isspace((unsigned char)*a)) a++;
    while (isspace((unsigned char)*b)) b++;
    if (*a != *b || !*a) return false;
    if (!strncmp(a, "};", 2) && !strncmp(b, "};", 2)) return true;
    a++;
    b++;
  }
}

static bool fits(const char *path, const mk_kernel *k, const char *text, mk_status *st) {
  const char *have = strstr(text, "struct Params {"), *want = strstr(k->source, "struct Params {");
  if (want && (!have || !same_struct(have, want)))
    mk_fail(st, MK_EINPUT, "%s: struct Params is not as it was emitted; the launch fills it in that layout, so it must stay",
            path);
  char define[256];
  int n = snprintf(define, sizeof define, "#define KERNEL %s\n", k->name);
  if (n < (int)sizeof define && !strstr(text, define))
    mk_fail(st, MK_EINPUT, "%s: the line \"#define KERNEL %s\" is gone; the kernel is looked up by that name", path, k->name);
  return !mk_failed(st);
}

/* Reads FOLDER/NAME.cu; sets edited[its kernel] when the text differs from the emitted one. */
static bool take(mk_planner *p, const char *folder, const char *file, bool *edited) {
  char *name = mk_strndup(p->temp, file, strlen(file) - 3);
  const char *path = mk_printf(p->temp, "%s/%s", folder, file);
  int k = find_kernel(p->plan, name);
  if (k < 0) {
    mk_fail(p->st, MK_EINPUT,
            "%s: this plan has no kernel of that name. Names hold a hash of what the kernel does: dump again with the same "
            "graph, --set, --arch and templates",
            path);
    return false;
  }
  size_t bytes;
  char *text = mk_file_read(path, &bytes, p->st);
  bool ok = text && fits(path, &p->plan->kernels[k], text, p->st);
  if (ok && strcmp(text, p->plan->kernels[k].source) != 0) {
    p->plan->kernels[k].source = mk_strdup(p->arena, text);
    p->plan->kernels[k].hash = mk_hash64(text, bytes);
    edited[k] = true;
  }
  free(text);
  return ok;
}

static bool uses(const mk_candidate *c, const bool *edited) {
  for (int i = 0; i < c->nlaunches; i++)
    if (c->launches[i].kind == MK_LAUNCH_KERNEL && edited[c->launches[i].kernel]) return true;
  return false;
}

/* A group keeps only the candidates with an edited kernel, if it has any: one that fails must not be replaced in silence. */
static void keep_edited(mk_planner *p, mk_group *g, const bool *edited) {
  mk_candidate *kept = MK_NEW_ARRAY(p->arena, mk_candidate, g->ncandidates);
  int n = 0;
  for (int c = 0; c < g->ncandidates; c++)
    if (uses(&g->candidates[c], edited)) kept[n++] = g->candidates[c];
  if (!n) return;
  g->candidates = kept;
  g->ncandidates = n;
  g->chosen = 0;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void mk_take_edited(mk_planner *p) {
  const char *folder = p->options->trial.edited;
  bool *edited = MK_NEW_ARRAY(p->temp, bool, p->plan->nkernels);
  DIR *dir = opendir(folder);
  if (!dir) {
    mk_fail(p->st, MK_EINPUT, "%s: no such folder; emit --dump writes one", folder);
    return;
  }
  char **files = NULL;
  int n = 0, cap = 0;
  for (struct dirent *d; (d = readdir(dir));) {
    size_t length = strlen(d->d_name);
    char *name = mk_strdup(p->temp, d->d_name);
    if (length > 3 && !strcmp(name + length - 3, ".cu")) MK_PUSH(p->temp, files, n, cap, name);
  }
  closedir(dir);
  if (n) qsort(files, (size_t)n, sizeof *files, by_text); /* so that the first error is always the same */
  if (!n) mk_fail(p->st, MK_EINPUT, "%s holds no NAME.cu; emit --dump writes such a folder", folder);
  mk_text names = {0};
  for (int i = 0; i < n && take(p, folder, files[i], edited); i++) continue;
  for (int g = 0; g < p->plan->ngroups && !mk_failed(p->st); g++) keep_edited(p, &p->plan->groups[g], edited);
  for (int k = 0; k < p->plan->nkernels; k++)
    if (edited[k]) mk_text_addf(&names, " %s", p->plan->kernels[k].name);
  if (!mk_failed(p->st))
    mk_log(MK_LOG_WARNING, "%s: %d kernels, edited:%s", folder, n, names.len ? mk_text_str(&names) : " none");
  mk_text_free(&names);
}
