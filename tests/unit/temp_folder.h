/* A fixture for tests that write files: a new folder before each test, gone after it. Include after cmocka.h. */
#ifndef MK_TESTS_TEMP_FOLDER_H
#define MK_TESTS_TEMP_FOLDER_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[32];

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/mk_test_XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state) {
  (void)state;
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

/* The path of a file in the folder; good for the next seven calls. */
static inline const char *in(const char *name) {
  static char paths[8][256];
  static int next;
  char *p = paths[next++ % 8];
  snprintf(p, sizeof paths[0], "%s/%s", folder, name);
  return p;
}

static inline int files_in_folder(void) {
  DIR *d = opendir(folder);
  int n = 0;
  for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
  closedir(d);
  return n;
}

#endif
