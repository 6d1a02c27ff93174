#include "runtime/cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 48 };

static void print_help(const mk_command_line *line) {
  printf("usage: %s\n\n%s\n\noptions:\n", line->usage, line->summary);
  for (int i = 0; i < line->count; i++) {
    const mk_option *o = &line->options[i];
    char head[64];
    snprintf(head, sizeof head, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    printf("  %-24s %s%s\n", head, o->help, o->kind == MK_OPT_LIST ? " (may be repeated)" : "");
  }
  printf("  %-24s %s\n", "--help", "this text");
}

static bool parse_number(const char *text, char **end, const mk_option *o, double *out) {
  errno = 0;
  *out = strtod(text, end);
  return *end != text && !errno && isfinite(*out) && *out >= o->low && *out <= o->high;
}

static bool parse_int(const char *text, char **end, const mk_option *o, int64_t *out) {
  errno = 0;
  *out = strtoll(text, end, 10);
  return *end != text && !errno && (double)*out >= o->low && (double)*out <= o->high;
}

static bool parse_value(const mk_option *o, const char *text) {
  char *end = NULL;
  switch (o->kind) {
    case MK_OPT_FLAG: *(bool *)o->target = true; return true;
    case MK_OPT_TEXT: *(const char **)o->target = text; return true;
    case MK_OPT_LIST: {
      mk_text_list *list = o->target;
      if (list->count == MK_LIST_MAX) return false;
      list->items[list->count++] = text;
      return true;
    }
    case MK_OPT_INT: return parse_int(text, &end, o, o->target) && !*end;
    case MK_OPT_NUMBER: return parse_number(text, &end, o, o->target) && !*end;
    case MK_OPT_PAIR: {
      mk_number_pair *p = o->target;
      if (!parse_number(text, &end, o, &p->values[0])) return false;
      p->values[1] = p->values[0];
      p->count = 1;
      if (*end != ',') return !*end;
      p->count = 2;
      return parse_number(end + 1, &end, o, &p->values[1]) && !*end;
    }
    case MK_OPT_SIZE: {
      mk_size *s = o->target;
      return parse_int(text, &end, o, &s->width) && (*end == 'x' || *end == '*') && parse_int(end + 1, &end, o, &s->height) &&
             !*end;
    }
  }
  return false;
}

static void complain_value(const mk_option *o, const char *text) {
  fprintf(stderr, "moonkiln: --%s: '%s' is not valid; ", o->name, text);
  switch (o->kind) {
    case MK_OPT_INT: fprintf(stderr, "give a whole number from %.0f to %.0f\n", o->low, o->high); break;
    case MK_OPT_NUMBER: fprintf(stderr, "give a number from %g to %g\n", o->low, o->high); break;
    case MK_OPT_PAIR: fprintf(stderr, "give one or two numbers from %g to %g, as in 3.0,4.0\n", o->low, o->high); break;
    case MK_OPT_SIZE: fprintf(stderr, "give WIDTHxHEIGHT, each from %.0f to %.0f, as in 1280x720\n", o->low, o->high); break;
    default: fprintf(stderr, "given too often (at most %d times)\n", MK_LIST_MAX); break;
  }
}

bool mk_options_parse(const mk_command_line *line, int argc, char **argv, int *first, int *exit_code) {
  struct option table[MAX_OPTIONS + 2] = {{0}};
  int n = line->count < MAX_OPTIONS ? line->count : MAX_OPTIONS;
  for (int i = 0; i < n; i++)
    table[i] =
        (struct option){line->options[i].name, line->options[i].kind == MK_OPT_FLAG ? no_argument : required_argument, NULL, 1};
  table[n] = (struct option){"help", no_argument, NULL, 'h'};
  opterr = 0;
  optind = 0;
  *exit_code = 2;
  for (int c, index = 0; (c = getopt_long(argc, argv, ":h", table, &index)) != -1;) {
    if (c == 'h') {
      print_help(line);
      *exit_code = 0;
      return false;
    }
    if (c == ':') {
      fprintf(stderr, "moonkiln: %s needs a value; see --help\n", argv[optind - 1]);
      return false;
    }
    if (c != 1) {
      fprintf(stderr, "moonkiln: unknown option '%s'; see %.*s --help\n", argv[optind - 1], (int)strcspn(line->usage, "[-GM<"),
              line->usage);
      return false;
    }
    if (!parse_value(&line->options[index], optarg)) {
      complain_value(&line->options[index], optarg);
      return false;
    }
  }
  *first = optind;
  int count = argc - optind;
  if (count < line->min_positional || count > line->max_positional) {
    fprintf(stderr, "moonkiln: %s\nusage: %s\n", count < line->min_positional ? "something is missing" : "too many arguments",
            line->usage);
    return false;
  }
  return true;
}

int mk_exit_code(const mk_status *st) {
  if (!mk_failed(st)) return 0;
  fprintf(stderr, "moonkiln: %s\n", st->message);
  if (st->code == MK_EINTERRUPTED) return 130;
  return st->code == MK_EINPUT ? 2 : 1;
}
