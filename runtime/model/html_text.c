#include "runtime/model/html_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { NAME_MAX_LENGTH = 32, STRICT_LENGTH = 24 };

typedef struct entity {
  const char *name;
  bool bare;
  int32_t points[2];
} entity;

static const entity entities[] = {
#define X(name, bare, first, second) {name, bare, {first, second}},
#include "runtime/model/html_entities.def"
#undef X
};

static int compare(const void *key, const void *element) { return strcmp(key, ((const entity *)element)->name); }

static const entity *find(const char *name) {
  return bsearch(name, entities, sizeof entities / sizeof *entities, sizeof *entities, compare);
}

int32_t mk_from_windows_1252(int32_t point) {
  static const uint16_t table[32] = {0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
                                     0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
                                     0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
  return point >= 0x80 && point < 0xa0 ? table[point - 0x80] : point;
}

static bool is_digit(int32_t c) { return c >= '0' && c <= '9'; }
static bool is_alnum(int32_t c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static int hex_value(int32_t c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Code points that a number may name but HTML drops: controls and non-characters. */
static bool is_dropped(int64_t v) {
  return (v >= 1 && v <= 8) || v == 0xb || (v >= 0xe && v <= 0x1f) || (v >= 0x7f && v <= 0x9f) || (v >= 0xfdd0 && v <= 0xfdef) ||
         (v & 0xfffe) == 0xfffe;
}

/* Reads "#123", "#x1F" after an ampersand at text[i]; appends its value. Returns the points used (with a semicolon), 0 if none.
 */
static size_t number(mk_arena *arena, mk_points text, size_t i, mk_points *out) {
  size_t at = i + 1;
  int base = 10;
  if (at < text.count && (text.at[at] == 'x' || text.at[at] == 'X')) base = 16, at++;
  size_t first = at;
  int64_t value = 0;
  for (int digit; at < text.count && (digit = hex_value(text.at[at])) >= 0 && digit < base; at++)
    if (value <= 0x10ffff) value = value * base + digit;
  if (at == first) return 0;
  if (at < text.count && text.at[at] == ';') at++;
  if (value >= 0x80 && value <= 0x9f)
    mk_points_add(arena, out, mk_from_windows_1252((int32_t)value));
  else if (value == 0 || (value >= 0xd800 && value <= 0xdfff) || value > 0x10ffff)
    mk_points_add(arena, out, 0xfffd);
  else if (!is_dropped(value))
    mk_points_add(arena, out, (int32_t)value);
  return at - i;
}

static void add_entity(mk_arena *arena, mk_points *out, const entity *e) {
  mk_points_add(arena, out, e->points[0]);
  if (e->points[1]) mk_points_add(arena, out, e->points[1]);
}

/* The letters and digits at text[i], at most `limit`, into name; returns how many. */
static size_t read_name(mk_points text, size_t i, size_t limit, char *name) {
  size_t n = 0;
  for (; n < limit && i + n < text.count && is_alnum(text.at[i + n]); n++) name[n] = (char)text.at[i + n];
  name[n] = 0;
  return n;
}

/* The longest name at text[i]; *used counts its semicolon. */
static const entity *longest(mk_points text, size_t i, size_t *used) {
  char name[NAME_MAX_LENGTH + 1];
  for (size_t n = read_name(text, i, NAME_MAX_LENGTH, name); n >= 2; n--) {
    name[n] = 0;
    const entity *e = find(name);
    if (!e) continue;
    bool closed = i + n < text.count && text.at[i + n] == ';';
    if (!closed && !e->bare) continue;
    *used = n + closed;
    return e;
  }
  return NULL;
}

mk_points mk_html_unescape(mk_arena *arena, mk_points text) {
  mk_points out = {0};
  for (size_t i = 0; i < text.count;) {
    if (text.at[i] == '&' && i + 1 < text.count) {
      size_t used = 0;
      if (text.at[i + 1] == '#') {
        used = number(arena, text, i + 1, &out);
      } else {
        const entity *e = longest(text, i + 1, &used);
        if (e) add_entity(arena, &out, e);
      }
      if (used) {
        i += 1 + used;
        continue;
      }
    }
    mk_points_add(arena, &out, text.at[i++]);
  }
  return out;
}

static void add_upper(mk_arena *arena, mk_points *out, int32_t point) {
  static const struct {
    int32_t point;
    const char *upper;
  } expanding[] = {{0xdf, "SS"}, {0xfb00, "FF"}, {0xfb01, "FI"}, {0xfb02, "FL"}, {0xfb03, "FFI"}, {0xfb04, "FFL"}};
  for (size_t i = 0; i < sizeof expanding / sizeof *expanding; i++)
    if (expanding[i].point == point) {
      for (const char *c = expanding[i].upper; *c; c++) mk_points_add(arena, out, *c);
      return;
    }
  if (point == 0x149) mk_points_add(arena, out, 0x2bc), point = 'n';
  mk_points_add(arena, out, utf8proc_toupper(point));
}

/* "EACUTE": a lower-case name in capitals that HTML itself does not know, not even as a prefix. */
static const entity *in_capitals(mk_points text, size_t i, const char *name) {
  char lower[STRICT_LENGTH + 1];
  size_t used, n = 0;
  for (; name[n]; n++) {
    if (name[n] >= 'a' && name[n] <= 'z') return NULL;
    lower[n] = name[n] >= 'A' && name[n] <= 'Z' ? (char)(name[n] + 32) : name[n];
  }
  lower[n] = 0;
  return longest(text, i, &used) ? NULL : find(lower);
}

/* One reference whose ampersand is text[i - 1] and which ends in a semicolon; returns the points used, 0 if it is none. */
static size_t strict_reference(mk_arena *arena, mk_points text, size_t i, mk_points *out) {
  char name[STRICT_LENGTH + 1];
  bool numeric = i < text.count && text.at[i] == '#';
  size_t n = read_name(text, i + numeric, STRICT_LENGTH, name), end = i + numeric + n;
  if (!n || end >= text.count || text.at[end] != ';') return 0;
  if (numeric) {
    mk_points value = {0};
    size_t used = number(arena, text, i, &value);
    /* A reference to the semicolon itself is left for the lenient pass, as is one with digits left over. */
    if (i + used != end + 1 || (value.count && value.at[0] == ';')) return 0;
    mk_points_append(arena, out, value);
    return used;
  }
  const entity *e = find(name);
  if (e) {
    add_entity(arena, out, e);
  } else if ((e = in_capitals(text, i, name))) {
    add_upper(arena, out, e->points[0]);
    if (e->points[1]) add_upper(arena, out, e->points[1]);
  } else {
    return 0;
  }
  return n + 1;
}

mk_points mk_html_unescape_strict(mk_arena *arena, mk_points text) {
  mk_points out = {0};
  for (size_t i = 0; i < text.count;) {
    size_t used = text.at[i] == '&' ? strict_reference(arena, text, i + 1, &out) : 0;
    if (used)
      i += 1 + used;
    else
      mk_points_add(arena, &out, text.at[i++]);
  }
  return out;
}
