#include "runtime/gpu/tuning.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/env.h"
#include "runtime/base/hash.h"
#include "runtime/base/log.h"
#include "runtime/gpu/lt.h"
#include "runtime/gpu/nvrtc_note.h"

static const double estimate = 1.05, little = 1.5e-4; /* a factor; seconds of a launch */

/* ---- opening */

static bool environment_of(const mk_gpu_device *d, mk_tune_environment *e) {
  mk_nvrtc nvrtc;
  mk_status none = {0};
  if (!mk_nvrtc_identify(&nvrtc, &d->cache, d->cu->version / 1000, &none)) return false; /* whoever compiles will say so */
  *e = (mk_tune_environment){
      .sms = d->sms, .driver = d->cu->version / 1000, .nvrtc_major = nvrtc.major, .nvrtc_minor = nvrtc.minor};
  snprintf(e->gpu, sizeof e->gpu, "%s", d->name);
  return true;
}

/* False when there are records that must be left alone. */
static bool read_folder(const char *folder, const mk_tune_environment *e, mk_records *r) {
  mk_status why = {0};
  mk_records_found found = mk_records_read(folder, e, r, &why);
  if (found == MK_RECORDS_FOREIGN)
    mk_log(MK_LOG_WARNING, "tuning records are ignored, and left as they are (delete or move the file to tune anew): %s",
           why.message);
  if (r->damaged) mk_log(MK_LOG_WARNING, "%s: %d lines of tuning records are damaged and were left out", folder, r->damaged);
  return found != MK_RECORDS_FOREIGN;
}

void mk_tuning_open(mk_tuning *t, const mk_gpu_device *d) {
  const mk_env *env = mk_env_get();
  mk_tune_environment e;
  char shipped[PATH_MAX];
  *t = (mk_tuning){0};
  if (!environment_of(d, &e)) return;
  t->user.environment = t->shipped.environment = e;
  if (*env->cache_dir && snprintf(t->folder, sizeof t->folder, "%s/tuning", env->cache_dir) < (int)sizeof t->folder) {
    if (!read_folder(t->folder, &e, &t->user)) t->folder[0] = 0;
  }
  if (mk_env_data_path("scripts/tuning", shipped, &(mk_status){0})) read_folder(shipped, &e, &t->shipped);
  mk_timeline("tuning records");
  mk_log(MK_LOG_INFO, "tuning records: %d of this user, %d shipped", t->user.count, t->shipped.count);
}

void mk_tuning_close(mk_tuning *t) {
  mk_records_free(&t->user);
  mk_records_free(&t->shipped);
}

bool mk_tuning_keep(mk_tuning *t, const mk_records *fresh, mk_status *st) {
  mk_records_merge(&t->user, fresh);
  if (!*t->user.environment.gpu) return true; /* never opened: for this process alone */
  if (*t->folder) return mk_records_write(t->folder, fresh, st);
  mk_fail(st, MK_EIO, "there is no folder for tuning records that may be written to; see MOONKILN_CACHE and the messages above");
  return false;
}

/* ---- candidates and entries */

bool mk_tuning_matters(const mk_group *g) {
  if (!g->nextents) return false;
  if (g->ncandidates > 1) return true;
  for (int c = 0; c < g->ncandidates; c++)
    for (int i = 0; i < g->candidates[c].nlaunches; i++)
      if (g->candidates[c].launches[i].kind == MK_LAUNCH_LT) return true;
  return false;
}

uint64_t mk_tuning_code(const mk_plan *plan, const mk_candidate *c) {
  uint64_t hash = 0;
  for (int i = 0; i < c->nlaunches; i++) {
    const mk_launch *l = &c->launches[i];
    uint64_t parts[2] = {hash, l->kind == MK_LAUNCH_KERNEL ? plan->kernels[l->kernel].hash : 0};
    hash = mk_hash64(parts, sizeof parts);
  }
  return hash;
}

void mk_tuning_label(const char *label, const char *algorithm, mk_text *out) {
  mk_text_addf(out, *algorithm ? "%s @%s" : "%s%s", label, algorithm);
}

void mk_tuning_split(const char *label, int *length, const char **algorithm) {
  const char *at = strrchr(label, '@');
  bool found = at && at > label && at[-1] == ' ';
  *length = found ? (int)(at - 1 - label) : (int)strlen(label);
  *algorithm = found ? at + 1 : "";
}

static bool same_label(const mk_record_entry *e, const char *label) {
  int length;
  const char *algorithm;
  mk_tuning_split(e->label, &length, &algorithm);
  return (size_t)length == strlen(label) && !strncmp(e->label, label, (size_t)length);
}

int mk_tuning_candidate(const mk_plan *plan, const mk_group *g, const mk_record_entry *e) {
  for (int c = 0; c < g->ncandidates; c++)
    if (same_label(e, g->candidates[c].label) && e->code == mk_tuning_code(plan, &g->candidates[c])) return c;
  return -1;
}

static bool names(const mk_records *r, uint64_t signature, const char *label) {
  int count;
  const mk_record *all = mk_records_of(r, signature, &count);
  if (!label) return count > 0;
  for (int i = 0; i < count; i++)
    if (same_label(&all[i].entries[0], label)) return true;
  return false;
}

static bool named(const void *user, uint64_t signature, const char *label) {
  const mk_tuning *t = user;
  return names(&t->user, signature, label) || names(&t->shipped, signature, label);
}

mk_precedents mk_tuning_precedents(const mk_tuning *t) { return (mk_precedents){named, t}; }

typedef struct seeker {
  const mk_plan *plan;
  const mk_group *group;
  bool unmeasured; /* looks for what was used, not measured */
} seeker;

static bool has_label(const mk_group *g, const mk_record_entry *e) {
  for (int c = 0; c < g->ncandidates; c++)
    if (same_label(e, g->candidates[c].label)) return true;
  return false;
}

/* What the group takes with candidate c, the group before not counted. */
static double cost_of(const mk_group *g, int c) {
  return g->candidates[c].cost - (g->candidates[c].covers ? g[-1].candidates[0].cost : 0);
}

/* Whether the candidate will do at this size, by the cost model: which has chosen itself what was not measured, and then will not
 * be overruled by more than what its estimates can tell, or than what does not matter. */
static bool is_near(const mk_record *r, const mk_group *g, int c) {
  double cost = cost_of(g, c), usual = cost_of(g, 0);
  if (!mk_record_distance(r, mk_record_class(g->flop), mk_record_class(g->bytes))) return true;
  return !mk_is_far_behind(cost, usual) && (mk_record_is_measured(r) || cost <= estimate * usual || cost <= usual + little);
}

/* The group's candidate that the record chose, or, where that is none at this size, the fastest of the others; -1: none. *entry:
 * the record's. */
static int chosen_by(const seeker *s, const mk_record *r, const mk_record_entry **entry) {
  int best = -1;
  for (int i = 0; i < r->count; i++) {
    const mk_record_entry *e = &r->entries[i];
    bool other = (e->state == MK_RUNNER_IN || e->state == MK_RUNNER_SLOW) && e->ms >= 0;
    if (i && (!other || (best >= 0 && e->ms >= (*entry)->ms))) continue;
    int c = mk_tuning_candidate(s->plan, s->group, e);
    if (c >= 0 && is_near(r, s->group, c)) {
      best = c;
      *entry = e;
    }
    if (!i && (best >= 0 || (c < 0 && has_label(s->group, e)))) break; /* its code may have changed */
  }
  return best;
}

static bool fits(void *user, const mk_record *r) {
  const mk_record_entry *entry;
  return mk_record_is_measured(r) != ((const seeker *)user)->unmeasured && chosen_by(user, r, &entry) >= 0;
}

static const mk_record *find(const mk_tuning *t, seeker *s) {
  int flop = mk_record_class(s->group->flop), bytes = mk_record_class(s->group->bytes);
  const mk_record *own = mk_records_nearest(&t->user, s->group->signature, flop, bytes, fits, s);
  const mk_record *shipped = mk_records_nearest(&t->shipped, s->group->signature, flop, bytes, fits, s);
  bool nearer = own && shipped && mk_record_distance(shipped, flop, bytes) < mk_record_distance(own, flop, bytes);
  return own && !nearer ? own : shipped;
}

/* Where nothing was gained by another algorithm than the library's own choice, that is left to the library for other sizes, too;
 * unless one was wrong, which must not come back. */
static bool algorithm_counts(const mk_record *r, const mk_group *g) {
  bool counts =
      r->entries[0].state == MK_RUNNER_KEPT || !mk_record_distance(r, mk_record_class(g->flop), mk_record_class(g->bytes));
  for (int i = 0; i < r->count; i++) counts |= r->entries[i].state == MK_RUNNER_WRONG;
  return counts;
}

void mk_tuning_apply(const mk_tuning *t, mk_plan *plan) {
  for (int g = 0; g < plan->ngroups; g++) {
    mk_group *group = &plan->groups[g];
    seeker s = {.plan = plan, .group = group};
    int length;
    const char *algorithm;
    const mk_record *r = mk_tuning_matters(group) ? find(t, &s) : NULL;
    const mk_record_entry *entry;
    s.unmeasured = !r;
    if (!r && mk_tuning_matters(group)) r = find(t, &s);
    if (!r) continue;
    group->chosen = chosen_by(&s, r, &entry);
    mk_tuning_split(entry->label, &length, &algorithm);
    group->algorithm = *algorithm && algorithm_counts(r, group) ? mk_strdup(&plan->arena, algorithm) : NULL;
  }
}

void mk_tuning_use(const mk_tuning *t, const mk_plan *plan, const mk_group *g, mk_records *out) {
  seeker s = {.plan = plan, .group = g};
  mk_record r = {
      .signature = g->signature, .flop = mk_record_class(g->flop), .bytes = mk_record_class(g->bytes), .name = g->name};
  if (!mk_tuning_matters(g) || find(t, &s)) return;
  s.unmeasured = true;
  const mk_record *used = find(t, &s);
  if (used && !mk_record_distance(used, r.flop, r.bytes)) return;
  char date[32];
  const mk_candidate *c = &g->candidates[g->chosen];
  const mk_record_entry entry = {MK_RUNNER_USED, -1, -1, mk_tuning_code(plan, c), c->label};
  mk_record_date(date);
  r.date = date;
  r.count = 1;
  r.entries = &entry;
  mk_records_add(out, &r);
}

/* ---- what is known */

static size_t family(const char *label) { return strcspn(label, " "); }

typedef enum sighting { NEVER_SEEN, SEEN, CHANGED } sighting;

/* Of a candidate among the records of its group's operation: some candidates fit some sizes only, so that a template's name
 * counts; but the same label with other code has changed. */
static sighting sight(const mk_records *r, uint64_t signature, const char *label, uint64_t code) {
  sighting best = NEVER_SEEN;
  bool same = false;
  int count;
  const mk_record *all = mk_records_of(r, signature, &count);
  for (int i = 0; i < count; i++) {
    for (int k = 0; k < all[i].count && mk_record_is_measured(&all[i]); k++) {
      const mk_record_entry *e = &all[i].entries[k];
      if (family(e->label) != family(label) || strncmp(e->label, label, family(label)) != 0) continue;
      if (best == NEVER_SEEN) best = SEEN;
      if (!same_label(e, label)) continue;
      same |= e->code == code;
      best = e->code == code ? best : CHANGED;
    }
  }
  return same ? SEEN : best;
}

mk_known mk_tuning_knows(const mk_tuning *t, const mk_plan *plan, const mk_group *g) {
  seeker s = {.plan = plan, .group = g};
  const mk_record *r = find(t, &s);
  if (!r) return MK_KNOWN_NOT;
  for (int c = 0; c < g->ncandidates; c++) {
    const char *label = g->candidates[c].label;
    if (g->candidates[c].launches[0].kind == MK_LAUNCH_LT) continue; /* where the library fits depends on the size, too */
    uint64_t code = mk_tuning_code(plan, &g->candidates[c]);
    sighting user = sight(&t->user, g->signature, label, code), shipped = sight(&t->shipped, g->signature, label, code);
    if (user != SEEN && shipped != SEEN) return MK_KNOWN_NOT;
  }
  bool exact = r->flop == mk_record_class(g->flop) && r->bytes == mk_record_class(g->bytes);
  return exact ? MK_KNOWN_EXACT : MK_KNOWN_NEAR;
}
