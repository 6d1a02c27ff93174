/* Which realisation of a group is the fastest: pure logic over times that somebody else measures. The runners stand in a fixed
 * order, the cost model's; those within a hundredth of the best count as equal and the earliest of them wins, so that two tunings
 * of one card agree. */
#ifndef MK_GPU_CONTEST_H
#define MK_GPU_CONTEST_H

#include <stdbool.h>
#include <stdint.h>

enum { MK_CONTEST_MAX = 32, MK_CONTEST_SAMPLES = 9 };

typedef enum mk_runner_state {
#define X(id, name, meaning) id,
#include "runtime/gpu/runner_state.def"
#undef X
  MK_RUNNER_STATES
} mk_runner_state;

typedef struct mk_runner {
  const char *label; /* borrowed */
  double cost;       /* the model's seconds */
  bool own;          /* of the user's templates: measured whatever the model says of it */
  uint64_t code;     /* equal: the same machine code launched in the same way; 0: not known */
  double error;      /* against the reference; negative: not known */
  mk_runner_state state;
  double ms[MK_CONTEST_SAMPLES];
  int samples;
} mk_runner;

typedef struct mk_contest {
  int count;
  mk_runner runners[MK_CONTEST_MAX];
  int rounds; /* begun so far */
} mk_contest;

const char *mk_runner_state_name(mk_runner_state s);
bool mk_runner_state_parse(const char *name, mk_runner_state *out);

/* Before anything is measured: those that the model holds hopeless (the user's own excepted), and all but the first of equal
 * code, are out. */
void mk_contest_begin(mk_contest *c);

/* Whether the runner's results are right, by their difference from the reference's; it is out if not. Not a number is wrong. */
bool mk_contest_judge(mk_contest *c, int runner, double error, double worst, double bound);

/* Who runs in the next round, in this order; how many, 0: it is decided. seconds: what may still be spent; a round that would
 * take longer is not begun once everyone has run. Rounds go back and forth, so that a drift of the clock meets all alike. */
int mk_contest_round(mk_contest *c, double seconds, int order[MK_CONTEST_MAX]);

/* A time of one run; those that have fallen behind for good are out. */
void mk_contest_sample(mk_contest *c, int runner, double ms);

/* The median of the samples; 0 without any. */
double mk_runner_ms(const mk_runner *r);

/* The winner so far, or -1 when nobody was measured. complete: everyone still in has run often enough to be believed. */
int mk_contest_winner(const mk_contest *c, bool *complete);

#endif
