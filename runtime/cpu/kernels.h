/* Node evaluators of the reference backend. Buffers are dense row-major, 4 bytes an element (f32, or i32 where the node is i32).
 * Each reads the node's description from the graph and its arguments' values from `in`. */
#ifndef MK_CPU_KERNELS_H
#define MK_CPU_KERNELS_H

#include "codegen/ir.h"

typedef struct mk_cpu_call {
  const mk_graph *g;
  const mk_node *node;
  const float *const *in; /* values of node->args; i32 values are read through an i32 pointer */
  float *out;
} mk_cpu_call;

void mk_cpu_unary(const mk_cpu_call *c);
void mk_cpu_binary(const mk_cpu_call *c);
void mk_cpu_reduce(const mk_cpu_call *c);
void mk_cpu_rope(const mk_cpu_call *c);
void mk_cpu_permute(const mk_cpu_call *c);
void mk_cpu_expand(const mk_cpu_call *c);
void mk_cpu_slice(const mk_cpu_call *c);
void mk_cpu_concat(const mk_cpu_call *c);
void mk_cpu_upsample(const mk_cpu_call *c);
bool mk_cpu_gather(const mk_cpu_call *c, mk_status *st); /* fails on an id outside the table */
void mk_cpu_matmul(const mk_cpu_call *c);
bool mk_cpu_attention(const mk_cpu_call *c, mk_status *st); /* fails on a kv_len outside [1, Sk] */
bool mk_cpu_conv(const mk_cpu_call *c, mk_status *st);

#endif
