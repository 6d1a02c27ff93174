/* Errors are values: the first failure of an operation, with what to do about it. */
#ifndef MK_BASE_STATUS_H
#define MK_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>

typedef enum mk_code {
  MK_OK = 0,
  MK_EINPUT,       /* the user's input is wrong: a file, a field, an option, a graph */
  MK_EIO,          /* the operating system refused: open, read, write, space */
  MK_ENOMEM,       /* host memory */
  MK_EGPU,         /* driver, library or device memory */
  MK_ECOMPILE,     /* a generated kernel did not compile */
  MK_EUNSUPPORTED, /* valid, but this build or backend cannot do it */
  MK_EINTERRUPTED, /* stopped on request */
  MK_EINTERNAL     /* an invariant of moonkiln does not hold */
} mk_code;

/* Zero-initialise. Holds the first failure only: later ones are usually its consequences. */
typedef struct mk_status {
  mk_code code;
  char message[2048];
} mk_status;

/* Records a failure unless one is recorded already. Returns the recorded code, for `return mk_fail(...)`. */
mk_code mk_fail(mk_status *st, mk_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
mk_code mk_vfail(mk_status *st, mk_code code, const char *format, va_list args);

/* Puts "prefix: " before the recorded message, naming the file or step in which it happened. */
void mk_fail_context(mk_status *st, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool mk_failed(const mk_status *st) { return st->code != MK_OK; }

/* Short name of a code, e.g. "input"; never NULL. */
const char *mk_code_name(mk_code code);

#endif
