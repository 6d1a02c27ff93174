#include "runtime/model/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double TRAINING_STEPS = 1000;
static const char *const names[] = {"unipc", "dpm++", "euler"};

bool mk_sampler_parse(const char *name, mk_sampler *out) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) {
      *out = (mk_sampler)i;
      return true;
    }
  return false;
}

const char *mk_sampler_name(mk_sampler sampler) { return names[sampler]; }

/* ---- sigmas ---- */

static double shifted(double u, double shift) { return shift * u / (1 + (shift - 1) * u); }

/* Point i of n + 1 evenly from `from` to `to`, as numpy's linspace computes it. */
static double evenly(double from, double to, int n, int i) { return from + i * ((to - from) / n); }

static double original_sigma(const mk_schedule_options *o, int i) {
  double from = o->sampler == MK_SAMPLER_UNIPC ? (double)0.999f : 1; /* the training sigmas are kept in f32 there */
  return shifted(evenly(from, 0, o->steps, i), o->shift);
}

static double diffusers_sigma(const mk_schedule_options *o, int i) {
  double lowest = 1 / TRAINING_STEPS;
  switch (o->sampler) {
    case MK_SAMPLER_EULER: { /* from the training sigmas, which are shifted already: shifted twice */
      double end = (double)(float)shifted(lowest, o->shift);
      return shifted(o->steps > 1 ? evenly(1, end, o->steps - 1, i) : 1, o->shift);
    }
    case MK_SAMPLER_DPMPP: return shifted(1 - evenly(1, lowest, o->steps, o->steps - i), o->shift);
    case MK_SAMPLER_UNIPC: break;
  }
  double sigma = shifted(evenly(1, lowest, o->steps, i), o->shift);
  return fabs(sigma - 1) < 1e-6 ? sigma - 1e-6 : sigma; /* diffusers' guard against the logarithm of zero */
}

static double given_sigma(const mk_schedule_options *o, int i) {
  if (o->sampler != MK_SAMPLER_EULER) return shifted(o->given[i], o->shift);
  float u = (float)o->given[i], shift = (float)o->shift; /* this class of diffusers does it in f32 */
  return (double)(shift * u / (1 + (shift - 1) * u));
}

static double sigma_at(const mk_schedule_options *o, int i) {
  if (o->grid == MK_GRID_ORIGINAL) return original_sigma(o, i);
  return o->grid == MK_GRID_DIFFUSERS ? diffusers_sigma(o, i) : given_sigma(o, i);
}

/* ---- solvers: sigma[0..n], the last is 0; infinite logarithms at 1 and 0 are part of the plan ---- */

static double alpha(const double *sigma, int i) { return 1 - sigma[i]; }
static double lambda(const double *sigma, int i) { return log(alpha(sigma, i)) - log(sigma[i]); }

/* 1/r for r = (lambda[i - 1] - lambda[i]) / h, the ratio of the step before to this one; 0 when that step was infinite. */
static double inverse_ratio(const double *sigma, int i, double h) { return h / (lambda(sigma, i - 1) - lambda(sigma, i)); }

/* From sigma[i - 1] to sigma[i] again, now that m0 there is known. order: of the predictor that made the step. */
static void unipc_corrector(const double *sigma, int i, int order, double c[5]) {
  double h = lambda(sigma, i) - lambda(sigma, i - 1), e = expm1(-h), scale = -alpha(sigma, i) * e;
  double of_m0 = 0.5, of_m2 = 0; /* weights of m0 - m1 and m2 - m1 */
  if (order == 2) {
    double r = 1 / inverse_ratio(sigma, i - 1, h), phi = -e / h - 1;
    double b1 = phi / e, b2 = (-phi / h - 0.5) * 2 / e;
    double rho = isinf(r) ? 0 : (b1 - b2) / (1 - r);
    of_m0 = b1 - rho;
    of_m2 = isinf(r) ? 0 : rho / r;
  }
  c[0] = 0;
  c[1] = sigma[i] / sigma[i - 1];
  c[2] = scale * of_m0;
  c[3] = scale * (1 - of_m0 - of_m2);
  c[4] = scale * of_m2;
}

/* From sigma[i] to sigma[i + 1]; second order adds half the slope through m0 and m1. */
static void exponential_step(const double *sigma, int i, int order, double d[4]) {
  double h = lambda(sigma, i + 1) - lambda(sigma, i), scale = -alpha(sigma, i + 1) * expm1(-h);
  double slope = order == 2 ? 0.5 * inverse_ratio(sigma, i, h) : 0; /* weight of m1 - m0 */
  d[0] = sigma[i + 1] / sigma[i];
  d[1] = scale * (1 - slope);
  d[2] = scale * slope;
  d[3] = 0;
}

static void solve(mk_sampler sampler, const double *sigma, int n, int i, double c[5], double d[4]) {
  int order = i == 0 || i == n - 1 ? 1 : 2;
  memcpy(c, (const double[5]){1}, 5 * sizeof *c);
  if (sampler == MK_SAMPLER_UNIPC && i > 0) unipc_corrector(sigma, i, i == 1 ? 1 : 2, c);
  if (i == n - 1) {
    memcpy(d, (const double[4]){0, 1}, 4 * sizeof *d); /* every solver ends on its last prediction */
  } else if (sampler == MK_SAMPLER_EULER) {
    double ratio = sigma[i + 1] / sigma[i]; /* x + (sigma' - sigma) v, with v = (x - m0) / sigma */
    memcpy(d, (const double[4]){ratio, 1 - ratio}, 4 * sizeof *d);
  } else {
    exponential_step(sigma, i, order, d);
  }
}

/* ---- the table ---- */

static bool check(const mk_schedule_options *o, mk_status *st) {
  if (o->steps < 1 || o->steps > MK_MAX_STEPS)
    mk_fail(st, MK_EINPUT, "steps: %d is not in 1..%d", o->steps, MK_MAX_STEPS);
  else if (!(o->shift >= 0.01 && o->shift <= 1000))
    mk_fail(st, MK_EINPUT, "shift: %g is not in 0.01..1000", o->shift);
  else if (!(o->boundary >= 0 && o->boundary <= 1))
    mk_fail(st, MK_EINPUT, "boundary: %g is not in 0..1", o->boundary);
  for (int i = 0; i < 2; i++)
    if (!(fabs(o->guidance[i]) <= 1000)) mk_fail(st, MK_EINPUT, "guidance: %g is not in -1000..1000", o->guidance[i]);
  if (mk_failed(st) || o->grid != MK_GRID_GIVEN) return !mk_failed(st);
  for (int i = 0; i < o->steps; i++)
    if (!(o->given[i] > 0 && o->given[i] <= 1) || (i && o->given[i] >= o->given[i - 1])) {
      mk_fail(st, MK_EINPUT, "sigmas: number %d is %g; they must fall from at most 1 and stay above 0", i + 1, o->given[i]);
      return false;
    }
  return true;
}

bool mk_schedule_build(const mk_schedule_options *o, mk_schedule *out, mk_status *st) {
  double sigma[MK_MAX_STEPS + 1];
  *out = (mk_schedule){0};
  if (!check(o, st)) return false;
  for (int i = 0; i < o->steps; i++) {
    sigma[i] = (double)(float)sigma_at(o, i);
    if (!(sigma[i] > 0) || (i && sigma[i] >= sigma[i - 1])) {
      mk_fail(st, MK_EINPUT, "shift: %g leaves no room for %d steps; lower either", o->shift, o->steps);
      return false;
    }
  }
  sigma[o->steps] = 0;
  out->step = calloc((size_t)o->steps, sizeof *out->step);
  if (!out->step) {
    mk_fail(st, MK_ENOMEM, "no memory for a schedule of %d steps", o->steps);
    return false;
  }
  out->steps = o->steps;
  for (int i = 0; i < o->steps; i++) {
    mk_schedule_step *s = &out->step[i];
    double c[5], d[4];
    solve(o->sampler, sigma, o->steps, i, c, d);
    for (int k = 0; k < 5; k++) s->c[k] = (float)c[k];
    for (int k = 0; k < 4; k++) s->d[k] = (float)d[k];
    s->sigma = (float)sigma[i];
    s->timestep =
        o->sampler == MK_SAMPLER_EULER ? (double)(float)(TRAINING_STEPS * sigma[i]) : trunc(TRAINING_STEPS * sigma_at(o, i));
    s->expert = s->timestep < TRAINING_STEPS * o->boundary;
    s->guidance = (float)o->guidance[s->expert];
  }
  return true;
}

void mk_schedule_free(mk_schedule *s) {
  free(s->step);
  *s = (mk_schedule){0};
}

void mk_schedule_coefficients(const mk_schedule_step *step, float out[MK_COEFFICIENTS]) {
  memset(out, 0, MK_COEFFICIENTS * sizeof *out);
  out[0] = step->sigma;
  memcpy(out + 1, step->c, sizeof step->c);
  memcpy(out + 6, step->d, sizeof step->d);
  out[10] = step->guidance;
}
