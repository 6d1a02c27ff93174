/* When and how far the sampler steps: sigmas, timesteps, experts, and the solvers written as linear combinations.
 *
 * Every solver here is linear in the latents and in past predictions, so the graph has one sampler
 * (scripts/models/wan_dit.lua), all in f32; v is the guided output of the network, last, m1 and m2 are states that start at zero:
 *
 *   m0 = x - sigma v                              prediction of the clean latents
 *   xc = c0 x + c1 last + c2 m0 + c3 m1 + c4 m2   corrector (UniPC), else x itself
 *   x' = d0 xc + d1 m0 + d2 m1 + d3 m2            predictor
 *   last' = xc, m2' = m1, m1' = m0
 *
 * Solver formulas are evaluated in double from the f32 sigmas. */
#ifndef MK_MODEL_SCHEDULE_H
#define MK_MODEL_SCHEDULE_H

#include <stdbool.h>

#include "runtime/base/status.h"

enum { MK_MAX_STEPS = 1000, MK_COEFFICIENTS = 16 };

typedef enum mk_sampler {
  MK_SAMPLER_UNIPC, /* order 2, bh2 */
  MK_SAMPLER_DPMPP, /* DPM-Solver++ 2M, midpoint */
  MK_SAMPLER_EULER
} mk_sampler;

typedef enum mk_grid {                    /* where the sigmas lie before they are shifted; u to s u / (1 + (s - 1) u) */
                       MK_GRID_ORIGINAL,  /* the original code's: UniPC from 0.999, the others from 1, evenly towards 0 */
                       MK_GRID_DIFFUSERS, /* each diffusers class's own */
                       MK_GRID_GIVEN      /* the caller's */
} mk_grid;

typedef struct mk_schedule_options {
  mk_sampler sampler;
  mk_grid grid;
  int steps;           /* 1..MK_MAX_STEPS */
  double shift;        /* > 0; 12 for T2V-A14B */
  double boundary;     /* in 0..1, 0.875 for T2V-A14B: expert 0 works while timestep >= 1000 × boundary; 0: always */
  double guidance[2];  /* of expert 0 (high noise) and 1 (low noise) */
  const double *given; /* MK_GRID_GIVEN: `steps` values in (0, 1], falling, before the shift; borrowed for the call */
} mk_schedule_options;

typedef struct mk_schedule_step {
  double timestep; /* what the network is given; a whole number except for Euler */
  int expert;      /* 0: high noise (or the only one), 1: low noise */
  float guidance;
  float sigma;
  float c[5], d[4]; /* see above */
} mk_schedule_step;

typedef struct mk_schedule {
  int steps;
  mk_schedule_step *step; /* owned */
} mk_schedule;

/* False with the status set for options out of range (named as the command line names them). Free with mk_schedule_free. */
bool mk_schedule_build(const mk_schedule_options *options, mk_schedule *out, mk_status *st);
void mk_schedule_free(mk_schedule *s);

/* The graph's "coefficients" input of a step: sigma, c0..c4, d0..d3, guidance, zeros. */
void mk_schedule_coefficients(const mk_schedule_step *step, float out[MK_COEFFICIENTS]);

bool mk_sampler_parse(const char *name, mk_sampler *out); /* "unipc", "dpm++", "euler" */
const char *mk_sampler_name(mk_sampler sampler);

#endif
