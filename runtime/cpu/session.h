/* The reference backend: runs a graph node by node in f32 on the host. Every test's oracle, and the default without a GPU. */
#ifndef MK_CPU_SESSION_H
#define MK_CPU_SESSION_H

#include "codegen/ir.h"
#include "runtime/session.h"

/* The graph must be verified; it is borrowed until close. Values of bf16 and f16 nodes are held in f32, rounded at casts only,
 * as the graph says. NULL with the status set on failure. */
mk_session *mk_cpu_session_open(const mk_graph *g, mk_status *st);

#endif
