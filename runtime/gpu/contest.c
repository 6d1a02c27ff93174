#include "runtime/gpu/contest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double hopeless = 2.5;            /* times the model's best: it is seldom wrong by more */
static const double tie = 1.01, tie_ms = 3e-4; /* events tell no less */

/* How far behind the best a runner may be after so many samples; the first one is the noisiest. */
static double margin(int samples) { return samples < 2 ? 1.3 : samples < 3 ? 1.12 : 1.05; }

enum { BELIEVED = 3 /* samples that make a result complete */ };
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

double mk_runner_ms(const mk_runner *r) {
  double sorted[MK_CONTEST_SAMPLES];
  if (!r->samples) return 0;
  memcpy(sorted, r->ms, sizeof *sorted * (size_t)r->samples);
  qsort(sorted, (size_t)r->samples, sizeof *sorted, by_value);
  int half = r->samples / 2;
  return r->samples % 2 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
}

static double least_ms(const mk_contest *c) {
  double least = -1;
  for (int i = 0; i < c->count; i++) {
    const mk_runner *r = &c->runners[i];
    if (r->state != MK_RUNNER_IN || !r->samples) continue;
    if (least < 0 || mk_runner_ms(r) < least) least = mk_runner_ms(r);
  }
  return least;
}

/* In a round nobody is compared with times of another round's clock only: a runner is out when it is behind the best median. */
static void cut(mk_contest *c) {
  double least = least_ms(c);
  for (int i = 0; i < c->count; i++) {
    mk_runner *r = &c->runners[i];
    if (r->state == MK_RUNNER_IN && r->samples && mk_runner_ms(r) > margin(r->samples) * least + tie_ms)
      r->state = MK_RUNNER_SLOW;
  }
}

void mk_contest_sample(mk_contest *c, int runner, double ms) {
  mk_runner *r = &c->runners[runner];
  if (r->samples == MK_CONTEST_SAMPLES) return;
  r->ms[r->samples++] = ms;
  cut(c);
}

int mk_contest_round(mk_contest *c, double seconds, int order[MK_CONTEST_MAX]) {
  int in = 0, n = 0, fewest = MK_CONTEST_SAMPLES;
  double round_ms = 0;
  for (int i = 0; i < c->count; i++) {
    const mk_runner *r = &c->runners[i];
    if (r->state != MK_RUNNER_IN) continue;
    in++;
    round_ms += mk_runner_ms(r);
    if (r->samples < fewest) fewest = r->samples;
  }
  if (in == 0 || fewest == MK_CONTEST_SAMPLES || (in == 1 && fewest > 0)) return 0;
  if (fewest > 0 && round_ms * 1e-3 > seconds) return 0;
  if (fewest >= BELIEVED && round_ms * 1e-3 > long_round) return 0;
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

int mk_contest_winner(const mk_contest *c, bool *complete) {
  double least = least_ms(c);
  int winner = -1, in = 0;
  bool all = true;
  for (int i = 0; i < c->count; i++) {
    const mk_runner *r = &c->runners[i];
    if (r->state != MK_RUNNER_IN) continue;
    in++;
    all &= r->samples >= BELIEVED;
    if (winner < 0 && r->samples && mk_runner_ms(r) <= tie * least + tie_ms) winner = i;
  }
  *complete = winner >= 0 && (all || (in == 1 && c->runners[winner].samples));
  return winner;
}
