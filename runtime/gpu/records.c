#include "runtime/gpu/records.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char head[] = "# moonkiln tuning records, version 2";
static const char explanation[] =
    "# What was measured on this card. A line for each group of operations and size of problem:\n"
    "#   SIGNATURE FLOP BYTES DATE | NAME | STATE MS ERROR CODE LABEL | ...\n"
    "# FLOP and BYTES are base-2 logarithms, rounded to quarters. The first candidate is used, here and for the nearest sizes.\n"
    "# States:\n"
#define X(id, name, meaning) "#   " name ": " meaning "\n"
#include "runtime/gpu/runner_state.def"
#undef X
    "# Lines may be deleted, and files of one environment joined: the newest line for a group and size counts.\n";

void mk_records_free(mk_records *r) {
  mk_arena_free(&r->arena);
  *r = (mk_records){0};
}

bool mk_record_is_measured(const mk_record *r) { return r->entries[0].state != MK_RUNNER_USED; }

void mk_record_date(char out[32]) {
  time_t seconds = time(NULL);
  struct tm utc;
  strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
}

int mk_record_class(double amount) { return amount > 1 ? (int)lround(4 * log2(amount)) : 0; }

/* ---- one line */

/* Separators would be taken for the line's own. */
static void add_clean(mk_text *out, const char *s) {
  for (; *s; s++) mk_text_add_n(out, (unsigned char)*s < ' ' || *s == '|' ? " " : s, 1);
}

/* " 1.234", or " -" for what is not known. */
static void add_number(mk_text *out, double value, bool exponent) {
  if (value < 0 || !isfinite(value))
    mk_text_add(out, " -");
  else if (exponent)
    mk_text_addf(out, " %.1e", value);
  else
    mk_text_addf(out, " %.5f", value);
}

static void print_record(const mk_record *r, mk_text *out) {
  mk_text_addf(out, "%016" PRIx64 " %.2f %.2f %s | ", r->signature, r->flop / 4.0, r->bytes / 4.0, r->date);
  add_clean(out, r->name);
  for (int i = 0; i < r->count; i++) {
    const mk_record_entry *e = &r->entries[i];
    mk_text_addf(out, " | %s", mk_runner_state_name(e->state));
    add_number(out, e->ms, false);
    add_number(out, e->error, true);
    mk_text_addf(out, " %016" PRIx64 " ", e->code);
    add_clean(out, e->label);
  }
  mk_text_add(out, "\n");
}

/* Cuts `text` at the next " | "; returns what is behind it, or NULL. */
static char *split(char *text) {
  char *at = strstr(text, " | ");
  if (!at) return NULL;
  *at = 0;
  return at + 3;
}

static bool parse_number(const char *word, double *out) {
  char *end;
  *out = -1;
  if (!strcmp(word, "-")) return true;
  *out = strtod(word, &end);
  return end != word && !*end && isfinite(*out) && *out >= 0;
}

static bool parse_hex(const char *word, uint64_t *out) {
  char *end;
  *out = strtoull(word, &end, 16);
  return strlen(word) == 16 && !*end && word[0] != '-' && word[0] != '+';
}

static bool parse_entry(const char *text, mk_record_entry *e) {
  char state[16], ms[32], error[32], code[32];
  int at = 0;
  if (sscanf(text, "%15s %31s %31s %31s %n", state, ms, error, code, &at) != 4 || !at || !text[at]) return false;
  e->label = text + at;
  return mk_runner_state_parse(state, &e->state) && parse_number(ms, &e->ms) && parse_number(error, &e->error) &&
         parse_hex(code, &e->code);
}

static bool parse_class(const char *word, int *out) {
  double value;
  if (!parse_number(word, &value) || value < 0 || value > 256) return false;
  *out = (int)lround(4 * value);
  return true;
}

static bool is_date(const char *s) {
  static const char pattern[] = "dddd-dd-ddTdd:dd:ddZ";
  if (strlen(s) != sizeof pattern - 1) return false;
  for (size_t i = 0; s[i]; i++)
    if (pattern[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != pattern[i]) return false;
  return true;
}

/* Spoils the line. What it fills in points into it. */
static bool parse_record(char *line, mk_record *r, mk_record_entry entries[MK_CONTEST_MAX], char date[32]) {
  char signature[32], flop[32], bytes[32];
  char *name = split(line), *next = name ? split(name) : NULL;
  if (!next || sscanf(line, "%31s %31s %31s %31s", signature, flop, bytes, date) != 4) return false;
  *r = (mk_record){.date = date, .name = name, .entries = entries};
  if (!parse_hex(signature, &r->signature) || !parse_class(flop, &r->flop) || !parse_class(bytes, &r->bytes) || !is_date(date))
    return false;
  while (next && r->count < MK_CONTEST_MAX) {
    char *entry = next;
    next = split(entry);
    if (!parse_entry(entry, &entries[r->count++])) return false;
  }
  mk_runner_state first = entries[0].state;
  return !next && (first == MK_RUNNER_BEST || first == MK_RUNNER_KEPT || first == MK_RUNNER_USED);
}

/* ---- the set */

static int compare(const mk_record *a, const mk_record *b) {
  if (a->signature != b->signature) return a->signature < b->signature ? -1 : 1;
  if (a->flop != b->flop) return a->flop - b->flop;
  return a->bytes - b->bytes;
}

static bool is_newer(const mk_record *a, const mk_record *b) {
  int order = strcmp(a->date, b->date);
  if (mk_record_is_measured(a) != mk_record_is_measured(b)) return mk_record_is_measured(a);
  if (order) return order > 0;
  mk_text x = {0}, y = {0};
  print_record(a, &x);
  print_record(b, &y);
  order = strcmp(mk_text_str(&x), mk_text_str(&y));
  mk_text_free(&x);
  mk_text_free(&y);
  return order > 0;
}

static mk_record copy(mk_arena *arena, const mk_record *r) {
  mk_record c = *r;
  mk_record_entry *entries = MK_NEW_ARRAY(arena, mk_record_entry, r->count);
  for (int i = 0; i < r->count; i++) {
    entries[i] = r->entries[i];
    entries[i].label = mk_strdup(arena, r->entries[i].label);
  }
  c.entries = entries;
  c.date = mk_strdup(arena, r->date);
  c.name = mk_strdup(arena, r->name);
  return c;
}

/* Where the first that is not before this one stands. */
static int first_from(const mk_records *r, const mk_record *record) {
  int low = 0, high = r->count;
  while (low < high) {
    int middle = (low + high) / 2;
    if (compare(&r->items[middle], record) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void mk_records_add(mk_records *r, const mk_record *record) {
  int low = first_from(r, record);
  bool known = low < r->count && !compare(&r->items[low], record);
  if (known && !is_newer(record, &r->items[low])) return;
  mk_record c = copy(&r->arena, record);
  if (!known) {
    MK_PUSH(&r->arena, r->items, r->count, r->cap, c); /* makes room */
    memmove(&r->items[low + 1], &r->items[low], sizeof *r->items * (size_t)(r->count - 1 - low));
  }
  r->items[low] = c;
}

void mk_records_merge(mk_records *into, const mk_records *from) {
  for (int i = 0; i < from->count; i++) mk_records_add(into, &from->items[i]);
}

const mk_record *mk_records_of(const mk_records *r, uint64_t signature, int *count) {
  int first = first_from(r, &(mk_record){.signature = signature}), end = first; /* sizes are not negative */
  while (end < r->count && r->items[end].signature == signature) end++;
  *count = end - first;
  return r->items + first;
}

int mk_record_distance(const mk_record *r, int flop, int bytes) { return abs(r->flop - flop) + abs(r->bytes - bytes); }

const mk_record *mk_records_nearest(const mk_records *r, uint64_t signature, int flop, int bytes, mk_record_accept_fn accept,
                                    void *user) {
  const mk_record *best = NULL;
  int least = INT_MAX, count;
  const mk_record *all = mk_records_of(r, signature, &count);
  for (int i = 0; i < count; i++) {
    int distance = mk_record_distance(&all[i], flop, bytes);
    if (distance >= least || (accept && !accept(user, &all[i]))) continue;
    least = distance;
    best = &all[i];
  }
  return best;
}

/* ---- the whole text */

static void print_environment(const mk_tune_environment *e, mk_text *out) {
  mk_text_add(out, "environment gpu=");
  add_clean(out, e->gpu);
  mk_text_addf(out, " | sms=%d | driver=%d | nvrtc=%d.%d\n", e->sms, e->driver, e->nvrtc_major, e->nvrtc_minor);
}

void mk_records_print(const mk_records *r, mk_text *out) {
  mk_text_addf(out, "%s\n%s", head, explanation);
  print_environment(&r->environment, out);
  for (int i = 0; i < r->count; i++) print_record(&r->items[i], out);
}

static bool parse_environment(const char *line, mk_tune_environment *e) {
  *e = (mk_tune_environment){0};
  int end = 0, found = sscanf(line, "environment gpu=%127[^|]| sms=%d | driver=%d | nvrtc=%d.%d%n", e->gpu, &e->sms, &e->driver,
                              &e->nvrtc_major, &e->nvrtc_minor, &end);
  size_t n = strlen(e->gpu);
  if (found != 5 || line[end] || n < 2 || e->gpu[n - 1] != ' ') return false;
  e->gpu[n - 1] = 0; /* the blank before the separator */
  return true;
}

bool mk_records_parse(mk_records *r, const char *text, mk_status *st) {
  bool first = true, known = false;
  char *copied = strdup(text), *next = copied;
  if (!copied) return mk_fail(st, MK_ENOMEM, "out of host memory"), false;
  for (char *line; (line = strsep(&next, "\n"));) {
    mk_record_entry entries[MK_CONTEST_MAX];
    mk_record record;
    char date[32];
    if (first && strcmp(line, head) != 0) {
      mk_fail(st, MK_EINPUT, "its first line is not '%s'", head);
      break;
    }
    first = false;
    if (!*line || *line == '#') continue;
    if (!known) {
      known = parse_environment(line, &r->environment);
      if (known) continue;
      mk_fail(st, MK_EINPUT, "its line of the environment is missing or damaged");
      break;
    }
    if (!next || !parse_record(line, &record, entries, date)) { /* a last line without its end was cut off */
      r->damaged++;
    } else {
      mk_records_add(r, &record);
    }
  }
  free(copied);
  if (!known) mk_fail(st, MK_EINPUT, "its line of the environment is missing or damaged");
  return !mk_failed(st);
}
