/* What ptxas says of a kernel, and what NVRTC says of its errors. */
#ifndef MK_GPU_REPORT_H
#define MK_GPU_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/text.h"

typedef struct mk_kernel_report { /* worst of all functions in the cubin */
  int registers;
  int smem_bytes; /* static shared memory */
  int stack_bytes;
  int spill_bytes; /* stores and loads together */
  int barriers;
  bool wgmma_serialized;   /* C7510: wgmma instructions wait for each other */
  bool setmaxnreg_ignored; /* C7508 and its like: registers are not moved between warpgroups */
} mk_kernel_report;

/* From a log made with --ptxas-options=-v. */
mk_kernel_report mk_report_parse_log(const char *log);

/* "registers=96 smem=0 ...", one line without its end, and back (false when it is not such a line). */
void mk_report_print(const mk_kernel_report *r, mk_text *out);
bool mk_report_scan(const char *line, mk_kernel_report *out);

/* The log's complaints, each with the numbered lines of the source (or of the PTX, for ptxas's own) around the place it names. */
void mk_report_errors(const char *log, const char *source, const char *ptx, mk_text *out);

/* The source's lines that hold `word`, numbered, a few of them; not those of comments. */
void mk_report_declarations(const char *source, const char *word, mk_text *out);

#endif
