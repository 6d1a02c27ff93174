/* Messages for people, on standard error, one whole line each; the level comes from MOONKILN_LOG. Thread-safe. */
#ifndef MK_BASE_LOG_H
#define MK_BASE_LOG_H

#include <stdbool.h>

typedef enum mk_log_level { MK_LOG_ERROR, MK_LOG_WARNING, MK_LOG_INFO, MK_LOG_DEBUG } mk_log_level;

void mk_log(mk_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool mk_log_on(mk_log_level level); /* for work done only to be logged */
double mk_log_age(void);            /* seconds since the process began, to a hundredth; 0 when unknown */

/* Says that something of the start is done, with the milliseconds since the process began, when MOONKILN_TIMELINE is on. */
void mk_timeline(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool mk_log_parse(const char *name, mk_log_level *out); /* "error", "warning", "info", "debug" */

#endif
