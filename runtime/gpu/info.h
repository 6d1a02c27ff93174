/* What this machine has for moonkiln, and what it lacks: for `moonkiln info` and for reports. Never fails. */
#ifndef MK_GPU_INFO_H
#define MK_GPU_INFO_H

#include <stdint.h>

#include "runtime/base/text.h"

/* Looks at the GPUs, driver, libraries, folders; one line each, then what is missing and how to get it. Writes no file. */
void mk_info_print(mk_text *out);

/* The table of environment switches as Markdown, which the README holds. */
void mk_info_print_environment(mk_text *out);

/* "1.4 GiB", "12 KiB" */
void mk_info_add_bytes(mk_text *out, int64_t bytes);

#endif
