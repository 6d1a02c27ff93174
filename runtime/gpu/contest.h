/* Which realisation of a group is the fastest: pure logic over times that somebody else measures. The runners stand in a fixed
 * order, the cost model's. Times are compared within a round only, where the clock was the same for all; two rounds, there and
 * back, make one comparison. The first runner wins unless another is faster by more than a hundredth and by more than three
 * standard errors; of those that are, all within a hundredth of the fastest count as equal and the earliest wins, so that two
 * tunings of one card agree. */
#ifndef MK_GPU_CONTEST_H
#define MK_GPU_CONTEST_H

#include <stdbool.h>
#include <stdint.h>

enum { MK_CONTEST_MAX = 32, MK_CONTEST_SAMPLES = 10 };

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
  double ms[MK_CONTEST_SAMPLES]; /* of round 0, 1, ... */
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

/* Who runs in the next round, in this order; how many, 0: it is decided. Those that have fallen behind are out. seconds: what may
 * still be spent; a round that would take longer is not begun once there are enough of them to be believed. */
int mk_contest_round(mk_contest *c, double seconds, int order[MK_CONTEST_MAX]);

/* A time of one run in the round at hand. */
void mk_contest_sample(mk_contest *c, int runner, double ms);

/* The winner so far, or -1 when nobody was measured. complete: everyone still in has run often enough to be believed. */
int mk_contest_winner(const mk_contest *c, bool *complete);

/* The runner's time at the clock that the winner's median was measured at; 0 without any sample. */
double mk_contest_ms(const mk_contest *c, int runner, int winner);

/* How many times as long a takes as b, by their times in n >= 1 rounds that went back and forth: the median over pairs of rounds.
 * *error: its standard error, told by the median deviation, so that an outlier does not matter. n is at most MK_RATIO_ROUNDS. */
enum { MK_RATIO_ROUNDS = 32 };
double mk_paired_ratio(const double *a, const double *b, int n, double *error);

#endif
