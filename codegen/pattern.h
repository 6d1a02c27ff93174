/* What stands before and behind matmuls, as algebra on the graph: what other realisations are made from. */
#ifndef MK_CODEGEN_PATTERN_H
#define MK_CODEGEN_PATTERN_H

#include "codegen/ir.h"

enum { MK_MAX_MODULATION = 6 };

/* value = cast(modulation of ((x - mean) * scale)): x [..., M, K]; mean and scale have one value a row, each step of the
 * modulation is an operation with one value a column. */
typedef struct mk_normed {
  int value, x;
  int mean;     /* or -1 */
  int scale;    /* one over the deviation */
  bool divides; /* `scale` is the divisor instead */
  int64_t rows, cols;
  int nsteps;
  struct {
    mk_op op;   /* MUL, DIV, ADD, SUB: of what came before and the vector */
    int vector; /* [K] with leading ones, or a scalar constant */
  } step[MK_MAX_MODULATION];
} mk_normed;

/* Whether `value` is of this form, with more than one row and column. */
bool mk_match_normed(const mk_graph *g, int value, mk_normed *out);

/* value = x + gate * cast(matmul + bias), in any order: x is as large as the result, gate and bias have one value a column. */
typedef struct mk_residual {
  int value, x, matmul;
  int gate, bias; /* or -1 */
} mk_residual;

bool mk_match_residual(const mk_graph *g, int value, mk_residual *out);

#endif
