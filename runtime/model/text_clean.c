#include "runtime/model/text_clean.h"

#include <stdbool.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "runtime/model/html_text.h"

const char mk_default_negative_prompt[] =
    "色调艳丽,过曝,静态,细节模糊不清,字幕,风格,作品,画作,画面,静止,整体发灰,最差质量,低质量,JPEG压缩残留,丑陋的,残缺的,"
    "多余的手指,"
    "画得不好的手部,画得不好的脸部,畸形的,毁容的,形态畸形的肢体,手指融合,静止不动的画面,杂乱的背景,三条腿,背景人很多,倒着走";

/* Up to this many points replace one; NFKC of a half-width or full-width form has at most 2. */
enum { MAX_REPLACEMENT = 4 };
typedef int (*replace_fn)(int32_t point, int32_t *out); /* returns how many points replace it */

static int one(int32_t point, int32_t *out) {
  out[0] = point;
  return 1;
}

static int fix_c1(int32_t point, int32_t *out) { return one(mk_from_windows_1252(point), out); }

static int fix_ligature(int32_t point, int32_t *out) {
  static const struct {
    int32_t point, parts[3];
  } table[] = {
      {0x132, {'I', 'J'}},    {0x133, {'i', 'j'}},  {0x149, {0x2bc, 'n'}}, {0x1c4, {'D', 0x17d}},     {0x1c5, {'D', 0x17e}},
      {0x1c6, {'d', 0x17e}},  {0x1c7, {'L', 'J'}},  {0x1c8, {'L', 'j'}},   {0x1c9, {'l', 'j'}},       {0x1ca, {'N', 'J'}},
      {0x1cb, {'N', 'j'}},    {0x1cc, {'n', 'j'}},  {0x1f1, {'D', 'Z'}},   {0x1f2, {'D', 'z'}},       {0x1f3, {'d', 'z'}},
      {0xfb00, {'f', 'f'}},   {0xfb01, {'f', 'i'}}, {0xfb02, {'f', 'l'}},  {0xfb03, {'f', 'f', 'i'}}, {0xfb04, {'f', 'f', 'l'}},
      {0xfb05, {0x17f, 't'}}, {0xfb06, {'s', 't'}},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].point == point) {
      int n = 0;
      for (; n < 3 && table[i].parts[n]; n++) out[n] = table[i].parts[n];
      return n;
    }
  return one(point, out);
}

static int fix_width(int32_t point, int32_t *out) {
  if (point == 0x3000) return one(' ', out);
  if (point < 0xff01 || point > 0xffef) return one(point, out);
  int boundary = 0;
  utf8proc_ssize_t n = utf8proc_decompose_char(point, out, MAX_REPLACEMENT, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, &boundary);
  if (n > 0) n = utf8proc_normalize_utf32(out, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  return n > 0 ? (int)n : one(point, out);
}

static int fix_quote(int32_t point, int32_t *out) {
  if (point == 0x2bc || (point >= 0x2018 && point <= 0x201b)) return one('\'', out);
  return one(point >= 0x201c && point <= 0x201f ? '"' : point, out);
}

static int fix_line_break(int32_t point, int32_t *out) {
  return one(point == '\r' || point == 0x2028 || point == 0x2029 || point == 0x85 ? '\n' : point, out);
}

static int drop_control(int32_t point, int32_t *out) {
  bool control = (point >= 0 && point <= 8) || point == 0xb || (point >= 0xe && point <= 0x1f) || point == 0x7f ||
                 (point >= 0x206a && point <= 0x206f) || point == 0xfeff || (point >= 0xfff9 && point <= 0xfffc);
  return control ? 0 : one(point, out);
}

static mk_points replace(mk_arena *arena, mk_points text, replace_fn fn) {
  mk_points out = {0};
  int32_t parts[MAX_REPLACEMENT];
  for (size_t i = 0; i < text.count; i++) {
    int n = fn(text.at[i], parts);
    for (int k = 0; k < n; k++) mk_points_add(arena, &out, parts[k]);
  }
  return out;
}

static mk_points join_crlf(mk_arena *arena, mk_points text) {
  mk_points out = {0};
  for (size_t i = 0; i < text.count; i++)
    if (text.at[i] != '\r' || i + 1 == text.count || text.at[i + 1] != '\n') mk_points_add(arena, &out, text.at[i]);
  return out;
}

/* "ESC [ digits and semicolons, one letter": colours and cursor movements of terminals. */
static mk_points drop_terminal_escapes(mk_arena *arena, mk_points text) {
  mk_points out = {0};
  for (size_t i = 0; i < text.count; i++) {
    if (text.at[i] == 0x1b && i + 1 < text.count && text.at[i + 1] == '[') {
      size_t end = i + 2;
      while (end < text.count && ((text.at[end] >= '0' && text.at[end] <= '9') || text.at[end] == ';')) end++;
      if (end < text.count && (text.at[end] | 32) >= 'a' && (text.at[end] | 32) <= 'z') {
        i = end;
        continue;
      }
    }
    mk_points_add(arena, &out, text.at[i]);
  }
  return out;
}

static utf8proc_uint8_t *encode(mk_arena *arena, mk_points text, size_t *bytes) {
  utf8proc_uint8_t *out = mk_alloc(arena, 4 * text.count + 1);
  *bytes = 0;
  for (size_t i = 0; i < text.count; i++) *bytes += (size_t)utf8proc_encode_char(text.at[i], out + *bytes);
  return out;
}

static mk_points nfc(mk_arena *arena, mk_points text, mk_status *st) {
  const utf8proc_option_t options = UTF8PROC_COMPOSE | UTF8PROC_STABLE;
  size_t bytes;
  utf8proc_uint8_t *utf8 = encode(arena, text, &bytes);
  utf8proc_ssize_t n = utf8proc_decompose(utf8, (utf8proc_ssize_t)bytes, NULL, 0, options);
  mk_points out = {.at = MK_NEW_ARRAY(arena, int32_t, n > 0 ? n + 1 : 1)};
  if (n > 0) n = utf8proc_decompose(utf8, (utf8proc_ssize_t)bytes, out.at, n, options);
  if (n > 0) n = utf8proc_normalize_utf32(out.at, n, options);
  if (n < 0) mk_fail(st, MK_EINTERNAL, "Unicode normalization failed: %s", utf8proc_errmsg(n));
  out.count = n > 0 ? (size_t)n : 0;
  return out;
}

/* ftfy's steps on one line, repeated until they change nothing. */
static mk_points fix_line(mk_arena *arena, mk_points line, bool unescape, mk_status *st) {
  static const replace_fn fixes[] = {fix_c1, fix_ligature, fix_width, fix_quote};
  for (;;) {
    mk_points text = line;
    if (unescape) text = mk_html_unescape_strict(arena, text);
    for (size_t i = 0; i < sizeof fixes / sizeof *fixes; i++) text = replace(arena, text, fixes[i]);
    text = replace(arena, join_crlf(arena, text), fix_line_break);
    text = replace(arena, drop_terminal_escapes(arena, text), drop_control);
    text = nfc(arena, text, st);
    if (mk_failed(st) || mk_points_equal(text, line)) return text;
    line = text;
  }
}

static mk_points fix_text(mk_arena *arena, mk_points text, mk_status *st) {
  mk_points out = {0};
  bool unescape = true; /* until a '<' is seen: from there on the text may be HTML itself */
  for (size_t from = 0, to; from < text.count; from = to) {
    for (to = from; to < text.count && text.at[to] != '\n'; to++) unescape = unescape && text.at[to] != '<';
    if (to < text.count) to++;
    mk_points_append(arena, &out, fix_line(arena, mk_points_slice(text, from, to), unescape, st));
  }
  return out;
}

static bool is_space(int32_t c) {
  return (c >= 9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static mk_points collapse_spaces(mk_arena *arena, mk_points text) {
  mk_points out = {0};
  for (size_t i = 0; i < text.count; i++) {
    if (!is_space(text.at[i]))
      mk_points_add(arena, &out, text.at[i]);
    else if (out.count && out.at[out.count - 1] != ' ')
      mk_points_add(arena, &out, ' ');
  }
  if (out.count && out.at[out.count - 1] == ' ') out.count--;
  return out;
}

static bool decode(mk_arena *arena, const char *text, size_t bytes, const char *what, mk_points *out, mk_status *st) {
  for (size_t i = 0; i < bytes;) {
    int32_t point;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &point);
    if (n <= 0) {
      mk_fail(st, MK_EINPUT, "%s is not valid UTF-8: byte 0x%02x at offset %zu; save or type the text as UTF-8", what,
              (unsigned char)text[i], i);
      return false;
    }
    mk_points_add(arena, out, point);
    i += (size_t)n;
  }
  return true;
}

const char *mk_text_clean(mk_arena *arena, const char *text, size_t bytes, const char *what, mk_status *st) {
  mk_arena scratch = {0};
  mk_points points = {0};
  char *result = NULL;
  if (decode(&scratch, text, bytes, what, &points, st)) {
    points = fix_text(&scratch, points, st);
    points = mk_html_unescape(&scratch, mk_html_unescape(&scratch, points));
    points = collapse_spaces(&scratch, points);
    size_t length;
    if (!mk_failed(st)) result = (char *)encode(arena, points, &length);
  }
  mk_arena_free(&scratch);
  return result;
}
