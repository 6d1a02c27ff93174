/* The cleaning that Wan applies to every prompt before it is tokenized. */
#ifndef MK_MODEL_TEXT_CLEAN_H
#define MK_MODEL_TEXT_CLEAN_H

#include "runtime/base/arena.h"
#include "runtime/base/status.h"

/* Wan2.2's built-in negative prompt, already cleaned; used when none is given. UTF-8. */
extern const char mk_default_negative_prompt[];

/* ftfy.fix_text, html.unescape twice, strip, runs of white space to one space, strip. UTF-8 in and out; the result lives in the
 * arena. `what` names the text in messages ("--prompt"). NULL for invalid UTF-8 (the message has the byte offset).
 *
 * Of ftfy: HTML references, windows-1252 controls, Latin ligatures, character width, curly quotes, line breaks, terminal escapes,
 * control characters, NFC. Left out: its repair of mojibake (text decoded with a wrong encoding, e.g. "cafÃ©"), a statistical
 * guess. */
const char *mk_text_clean(mk_arena *arena, const char *text, size_t bytes, const char *what, mk_status *st);

#endif
