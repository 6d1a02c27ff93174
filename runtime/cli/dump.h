/* A folder with every stage of a graph's way to kernels, to be read, edited and loaded again. */
#ifndef MK_CLI_DUMP_H
#define MK_CLI_DUMP_H

#include "codegen/plan.h"

typedef struct mk_dump { /* all borrowed */
  const mk_graph *graph;
  const mk_plan *plan;
  const mk_plan_options *options; /* that the plan was made with */
  const bool *wanted;             /* one per kernel */
  const char *command;            /* the graph's part of a command line: "GRAPH.lua --set a=1" */
} mk_dump;

/* Writes ir.txt, groups.txt, plan.txt, compile.txt and NAME.cu of each wanted kernel. The folder must not be there yet, or be
 * empty; it appears whole or not at all. */
bool mk_dump_write(const mk_dump *d, const char *folder, mk_status *st);

#endif
