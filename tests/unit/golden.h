/* Goldens: graph files whose last comment holds what must come of them; with GOLDEN_UPDATE=1 in the environment it is rewritten.
 * Include after cmocka.h. */
#ifndef MK_TESTS_GOLDEN_H
#define MK_TESTS_GOLDEN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/file.h"

static inline void compare_golden(const char *path, const char *have) {
  static const char open[] = "\n--[==[ expected:\n", close[] = "]==]\n";
  mk_status st = {0};
  size_t bytes;
  char *text = mk_file_read(path, &bytes, &st);
  assert_non_null(text);
  char *start = strstr(text, open);
  if (getenv("GOLDEN_UPDATE")) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%.*s%s%s%s", start ? (int)(start - text) : (int)bytes, text, open, have, close);
    fclose(f);
  } else {
    assert_non_null(start);
    char *want = start + strlen(open), *end = strstr(want, close);
    assert_non_null(end);
    *end = 0;
    if (strcmp(want, have) != 0) print_error("%s\n", have);
    assert_string_equal(want, have);
  }
  free(text);
}

#endif
