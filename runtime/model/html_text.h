/* HTML character references in plain text. */
#ifndef MK_MODEL_HTML_TEXT_H
#define MK_MODEL_HTML_TEXT_H

#include "runtime/model/points.h"

/* All references, as HTML5 reads them and Python's html.unescape does: names with or without a semicolon where HTML allows it,
 * longest name first, numbers with the windows-1252 exceptions. */
mk_points mk_html_unescape(mk_arena *arena, mk_points text);

/* Only the unambiguous ones, as ftfy does: with a semicolon, and also names typed in capitals (&EACUTE;). */
mk_points mk_html_unescape_strict(mk_arena *arena, mk_points text);

/* What windows-1252 has at 0x80..0x9f; other code points, and the five bytes it leaves free, stay as they are. */
int32_t mk_from_windows_1252(int32_t point);

#endif
