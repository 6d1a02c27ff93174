/* Command-line options from a table: parsing through getopt_long, range checks, and the text of --help. */
#ifndef MK_CLI_OPTIONS_H
#define MK_CLI_OPTIONS_H

#include "runtime/base/status.h"

#include <stdint.h>

typedef enum mk_option_kind {
  MK_OPT_FLAG,   /* bool: present or not */
  MK_OPT_TEXT,   /* const char *, borrowed from argv */
  MK_OPT_LIST,   /* mk_text_list: may be given again and again */
  MK_OPT_INT,    /* int64_t in [low, high] */
  MK_OPT_NUMBER, /* double in [low, high], finite */
  MK_OPT_PAIR,   /* mk_number_pair: "A" or "A,B", each in [low, high] */
  MK_OPT_SIZE    /* mk_size: "WIDTHxHEIGHT", each in [low, high] */
} mk_option_kind;

enum { MK_LIST_MAX = 64 };
typedef struct mk_text_list {
  int count;
  const char *items[MK_LIST_MAX];
} mk_text_list;

typedef struct mk_number_pair {
  int count; /* 0: not given */
  double values[2];
} mk_number_pair;

typedef struct mk_size {
  int64_t width, height; /* 0: not given */
} mk_size;

typedef struct mk_option {
  const char *name; /* without the dashes */
  mk_option_kind kind;
  void *target;      /* of the kind's type; holds the default beforehand */
  const char *value; /* what help calls the value, e.g. "N"; NULL for flags */
  const char *help;
  double low, high;
} mk_option;

typedef struct mk_command_line {
  const char *usage;   /* "moonkiln run GRAPH.lua [options]" */
  const char *summary; /* a sentence or two */
  const mk_option *options;
  int count;
  int min_positional, max_positional;
} mk_command_line;

/* Parses argv[1..]. Returns true to go on: positionals are then argv[*first .. argc) (argv is reordered). Returns false when the
 * program should exit with *exit_code: 0 after --help, 2 after a usage error, which has been written to stderr. */
bool mk_options_parse(const mk_command_line *line, int argc, char **argv, int *first, int *exit_code);

/* Writes the error to stderr and returns the program's exit code for it: 0 ok, 1 failure, 2 wrong input, 130 interrupted. */
int mk_exit_code(const mk_status *st);

#endif
