/* Progress for people, on standard error: a bar with the time a step takes and the time left; lines where it is no terminal. */
#ifndef MK_MODEL_PROGRESS_H
#define MK_MODEL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct mk_progress {
  FILE *out;      /* NULL: stderr */
  char phase[64]; /* of the line being drawn */
  bool open;      /* that line has no end yet */
  double drawn;   /* its phase's seconds at the last drawing */
  double left;    /* seconds until the end, where the caller knows better than the average tells; 0: it does not */
} mk_progress;    /* zero-initialise */

/* done of total units of `phase` took `seconds` so far; what stands behind a colon in it may change. Redraws a terminal's line at
 * most ten times a second; elsewhere writes a line at most twice a second, and always the last one of a phase. */
void mk_progress_show(mk_progress *p, const char *phase, int64_t done, int64_t total, double seconds);
void mk_progress_end(mk_progress *p); /* ends the line, if one is open */

/* The text of one line, at most `width` columns: "denoising  65%|██████▌   | 26/40 [01:02<00:33, 2.38 s/it]"; returns buf. */
const char *mk_progress_line(char *buf, size_t size, int width, const char *phase, int64_t done, int64_t total, double seconds);

#endif
