#include "runtime/gpu/contest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double hopeless = 2.5;            /* times the model's best: it is seldom wrong by more */
static const double tie = 1.01, tie_ms = 3e-4; /* events tell no less */
static const double errors = 3;                /* standard errors by which a change has to win */

/* How far behind the best a runner may be after so many rounds; the first one is the noisiest. */
static double margin(int rounds) { return rounds < 2 ? 1.3 : rounds < 4 ? 1.1 : 1.03; }

enum { BELIEVED = 4 /* rounds that make a result complete */ };
static const double long_round = 0.25; /* seconds: such rounds are not worth more than that many */

static const double local_slack = 5; /* a few elements may differ by more than all of them together */

static const char *const names[MK_RUNNER_STATES] = {
#define X(id, name, meaning) name,
#include "runtime/gpu/runner_state.def"
#undef X
};

const char *mk_runner_state_name(mk_runner_state s) { return names[s]; }

bool mk_runner_state_parse(const char *name, mk_runner_state *out) {
  for (int i = 0; i < MK_RUNNER_STATES; i++)
    if (!strcmp(names[i], name)) return *out = (mk_runner_state)i, true;
  return false;
}

void mk_contest_begin(mk_contest *c) {
  double least = -1;
  for (int i = 0; i < c->count; i++)
    if (c->runners[i].state == MK_RUNNER_IN && (least < 0 || c->runners[i].cost < least)) least = c->runners[i].cost;
  for (int i = 0; i < c->count; i++) {
    mk_runner *r = &c->runners[i];
    if (r->state == MK_RUNNER_IN && !r->own && r->cost > hopeless * least) r->state = MK_RUNNER_MODEL;
    for (int k = 0; k < i && r->state == MK_RUNNER_IN && r->code; k++)
      if (c->runners[k].state == MK_RUNNER_IN && c->runners[k].code == r->code) r->state = MK_RUNNER_SAME;
  }
}

bool mk_contest_judge(mk_contest *c, int runner, double error, double worst, double bound) {
  mk_runner *r = &c->runners[runner];
  r->error = isfinite(error) ? error : INFINITY;
  if (error <= bound && worst <= local_slack * bound) return true;
  r->state = MK_RUNNER_WRONG;
  return false;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, by_value);
  return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

double mk_paired_ratio(const double *a, const double *b, int n, double *error) {
  double r[MK_RATIO_ROUNDS / 2], away[MK_RATIO_ROUNDS / 2] = {0};
  int pairs = n / 2;
  for (int i = 0; i < pairs; i++) r[i] = sqrt(a[2 * i] * a[2 * i + 1] / (b[2 * i] * b[2 * i + 1]));
  if (!pairs) r[pairs++] = a[0] / b[0];
  double middle = median(r, pairs);
  for (int i = 0; i < pairs; i++) away[i] = fabs(r[i] - middle);
  /* Of normal values: 1.4826 for the deviation, 1.2533 for being a median's; and few of them say little of how they vary. */
  *error = 1.858 * median(away, pairs) / sqrt(pairs) * (1 + 8.0 / (pairs * pairs));
  return middle;
}

static double median_ms(const mk_runner *r) {
  double ms[MK_CONTEST_SAMPLES];
  if (!r->samples) return 0;
  memcpy(ms, r->ms, sizeof *ms * (size_t)r->samples);
  return median(ms, r->samples);
}

/* By the rounds that both ran in. */
static double ratio(const mk_runner *a, const mk_runner *b, double *error) {
  return mk_paired_ratio(a->ms, b->ms, a->samples < b->samples ? a->samples : b->samples, error);
}

double mk_contest_ms(const mk_contest *c, int runner, int winner) {
  double error;
  const mk_runner *r = &c->runners[runner], *w = &c->runners[winner];
  return r->samples ? median_ms(w) * ratio(r, w, &error) : 0;
}

static bool measured(const mk_runner *r) { return r->state == MK_RUNNER_IN && r->samples; }

/* Whether a is behind b by more than a factor, beyond noise and what events can tell. */
static bool behind(const mk_runner *a, const mk_runner *b, double factor) {
  double error, q = ratio(a, b, &error);
  return q - error > factor + tie_ms / median_ms(b);
}

static int fastest(const mk_contest *c) {
  int best = -1;
  for (int i = 0; i < c->count; i++)
    if (measured(&c->runners[i]) && (best < 0 || median_ms(&c->runners[i]) < median_ms(&c->runners[best]))) best = i;
  return best;
}

/* The first one, whom the others have to beat, stays until it can be believed. */
static void cut(mk_contest *c) {
  int best = fastest(c), first = -1;
  for (int i = 0; i < c->count && best >= 0; i++) {
    mk_runner *r = &c->runners[i];
    if (!measured(r)) continue;
    if (first < 0) first = i;
    bool stays = i == best || (i == first && r->samples < BELIEVED);
    if (!stays && behind(r, &c->runners[best], margin(r->samples))) r->state = MK_RUNNER_SLOW;
  }
}

void mk_contest_sample(mk_contest *c, int runner, double ms) {
  mk_runner *r = &c->runners[runner];
  if (r->samples < MK_CONTEST_SAMPLES) r->ms[r->samples++] = ms;
}

int mk_contest_round(mk_contest *c, double seconds, int order[MK_CONTEST_MAX]) {
  int in = 0, n = 0, fewest = MK_CONTEST_SAMPLES;
  double round_ms = 0;
  cut(c);
  for (int i = 0; i < c->count; i++) {
    const mk_runner *r = &c->runners[i];
    if (r->state != MK_RUNNER_IN) continue;
    in++;
    round_ms += median_ms(r);
    if (r->samples < fewest) fewest = r->samples;
  }
  if (in == 0 || fewest == MK_CONTEST_SAMPLES || (in == 1 && fewest > 0)) return 0;
  if (fewest >= BELIEVED && round_ms * 1e-3 > fmin(seconds, long_round)) return 0;
  for (int i = 0; i < c->count; i++)
    if (c->runners[i].state == MK_RUNNER_IN) order[n++] = i;
  if (c->rounds++ % 2)
    for (int i = 0; i < n / 2; i++) {
      int other = order[n - 1 - i];
      order[n - 1 - i] = order[i];
      order[i] = other;
    }
  return n;
}

/* Whether the runner is faster than the one that stands for no change, by enough to make one. */
static bool beats(const mk_runner *r, const mk_runner *usual) {
  double error, q = ratio(r, usual, &error);
  return q < 1 / tie - tie_ms / median_ms(usual) && q + errors * error < 1;
}

int mk_contest_winner(const mk_contest *c, bool *complete) {
  int first = -1, best = -1, in = 0;
  bool all = true;
  *complete = false;
  for (int i = 0; i < c->count; i++) {
    const mk_runner *r = &c->runners[i];
    if (r->state != MK_RUNNER_IN) continue;
    in++;
    all &= r->samples >= BELIEVED;
    if (first < 0 && r->samples) first = i;
  }
  if (first < 0) return -1;
  *complete = all || in == 1;
  for (int i = first + 1; i < c->count; i++)
    if (measured(&c->runners[i]) && beats(&c->runners[i], &c->runners[first]) &&
        (best < 0 || median_ms(&c->runners[i]) < median_ms(&c->runners[best])))
      best = i;
  for (int i = first + 1; i < best; i++)
    if (measured(&c->runners[i]) && beats(&c->runners[i], &c->runners[first]) && !behind(&c->runners[i], &c->runners[best], tie))
      return i;
  return best < 0 ? first : best;
}
