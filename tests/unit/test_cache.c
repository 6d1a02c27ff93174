/* The kernel cache: whatever happens to its files, it gives the right bytes or none. */
#include "runtime/gpu/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/file.h"

static char folder[64];
static const char key[] = "compiler 1\n-arch=sm_90a\nkernel\n\nsource text";
static char payload[3000];

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/mk_cache_XXXXXX");
  for (size_t i = 0; i < sizeof payload; i++) payload[i] = (char)(i * 131 + i / 7);
  return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

static bool store(mk_cache *c) {
  return mk_cache_store(c, key, sizeof key, &(mk_cache_entry){"a kernel", "registers=3", payload, sizeof payload});
}

/* 1: the right bytes; 0: none. Wrong ones fail the test. */
static int look_up(mk_cache *c) {
  mk_cache_entry e;
  if (!mk_cache_lookup(c, key, sizeof key, &e)) {
    assert_null(e.payload);
    return 0;
  }
  assert_int_equal(e.bytes, sizeof payload);
  assert_memory_equal(e.payload, payload, sizeof payload);
  assert_string_equal(e.label, "a kernel");
  assert_string_equal(e.meta, "registers=3");
  mk_cache_entry_free(&e);
  return 1;
}

typedef struct seen {
  int states[3];
  char path[PATH_MAX]; /* of the last good entry */
} seen;

static bool note(void *user, const mk_cache_item *item) {
  seen *s = user;
  s->states[item->state]++;
  if (item->state == MK_CACHE_GOOD) strcpy(s->path, item->path);
  return true;
}

static seen visit(mk_cache *c) {
  seen s = {0};
  mk_cache_visit(c, note, &s);
  return s;
}

static void keeps_and_gives_back(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_open(&c, folder);
  assert_true(c.writable);
  assert_int_equal(look_up(&c), 0);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  assert_int_equal(c.damaged, 0);
  struct stat info;
  assert_int_equal(stat(c.folder, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0700);
  mk_cache_entry e;
  assert_false(mk_cache_lookup(&c, key, sizeof key - 1, &e));
  assert_true(mk_cache_store(&c, "empty", 5, &(mk_cache_entry){"", "", NULL, 0}));
  assert_true(mk_cache_lookup(&c, "empty", 5, &e));
  assert_int_equal(e.bytes, 0);
  mk_cache_entry_free(&e);
  assert_int_equal(mk_cache_measure(&c).entries, 2);
}

static void damage_is_noticed_and_repaired(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  size_t bytes;
  char *good = mk_file_read(s.path, &bytes, &st);
  assert_non_null(good);
  char *bad = malloc(bytes + 1);
  int expected = 0;
  /* Every byte of the header and of the key, label and meta; every 11th of the payload. */
  for (size_t i = 0; i < bytes; i += i < 150 ? 1 : 11) {
    memcpy(bad, good, bytes);
    bad[i] ^= (char)(1 << (i % 8));
    assert_true(mk_file_publish(s.path, bad, bytes, &st));
    assert_int_equal(look_up(&c), 0);
    assert_int_equal(c.damaged, ++expected);
  }
  for (size_t n = 0; n < bytes; n += n < 150 ? 1 : 97) {
    assert_true(mk_file_publish(s.path, good, n, &st));
    assert_int_equal(look_up(&c), 0);
    assert_int_equal(c.damaged, ++expected);
  }
  memcpy(bad, good, bytes);
  bad[bytes] = 0;
  assert_true(mk_file_publish(s.path, bad, bytes + 1, &st));
  assert_int_equal(look_up(&c), 0);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 1);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 0);
  free(good);
  free(bad);
}

static void equal_hashes_are_told_apart(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_open(&c, folder);
  /* A good entry of another key under this key's name: what a collision of the hash would make. */
  assert_true(store(&c));
  seen mine = visit(&c);
  assert_int_equal(unlink(mine.path), 0);
  assert_true(mk_cache_store(&c, "other", 5, &(mk_cache_entry){"other", "", "x", 1}));
  seen other = visit(&c);
  size_t bytes;
  char *data = mk_file_read(other.path, &bytes, &st);
  assert_true(mk_file_publish(mine.path, data, bytes, &st));
  free(data);
  assert_int_equal(look_up(&c), 0);
  assert_int_equal(c.damaged, 0);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 1); /* but `verify` finds the misplaced file */
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
}

static void many_processes_at_once(void **state) {
  (void)state;
  enum { PROCESSES = 6, ROUNDS = 20 };
  mk_cache c;
  mk_cache_open(&c, folder);
  for (int i = 0; i < PROCESSES; i++) {
    if (fork()) continue;
    int bad = 0;
    for (int k = 0; k < ROUNDS; k++) {
      mk_cache_entry e;
      bad += !store(&c);
      bad += !mk_cache_lookup(&c, key, sizeof key, &e) || e.bytes != sizeof payload ||
             memcmp(e.payload, payload, sizeof payload) != 0;
      mk_cache_entry_free(&e);
    }
    _exit(bad || c.damaged ? 1 : 0);
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status;
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  seen s = visit(&c);
  assert_int_equal(s.states[MK_CACHE_GOOD], 1);
  assert_int_equal(s.states[MK_CACHE_DAMAGED] + s.states[MK_CACHE_LEFTOVER], 0);
}

static void a_folder_that_cannot_be_used_is_no_failure(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_open(&c, "/proc/no/such/place");
  assert_false(c.writable);
  assert_false(store(&c));
  assert_int_equal(look_up(&c), 0);

  char path[PATH_MAX];
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  /* The entry's folder cannot be made, as on a full or read-only disk. */
  assert_int_equal(unlink(s.path), 0);
  *strrchr(s.path, '/') = 0;
  assert_int_equal(rmdir(s.path), 0);
  assert_true(mk_file_publish(s.path, "", 0, &st));
  assert_false(store(&c));
  assert_false(c.writable);
  assert_int_equal(look_up(&c), 0);

  /* Readable only: what is there is used. */
  assert_int_equal(unlink(s.path), 0);
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  chmod(folder, 0500);
  chmod(c.folder, 0500);
  mk_cache_open(&c, folder);
  assert_int_equal(look_up(&c), 1);
  chmod(folder, 0700);
  chmod(c.folder, 0700);

  snprintf(path, sizeof path, "%s/file", folder);
  assert_true(mk_file_publish(path, "", 0, &st));
  mk_cache_open(&c, path);
  assert_false(c.writable);
  assert_false(store(&c));
}

static void a_folder_that_others_can_write_is_refused(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  static const mode_t modes[] = {0702, 0720, 0777};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    chmod(folder, modes[i]);
    mk_cache_open(&c, folder);
    assert_false(c.writable);
    assert_int_equal(look_up(&c), 0);
    assert_false(store(&c));
  }
  chmod(folder, 0755);
  mk_cache_open(&c, folder);
  assert_int_equal(look_up(&c), 1);
}

static void clearing_takes_only_what_is_ours(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  char path[4][PATH_MAX];
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  snprintf(path[0], PATH_MAX, "%.4000s.123-4567.tmp", s.path);
  snprintf(path[1], PATH_MAX, "%.4000s/notes", c.folder);
  snprintf(path[2], PATH_MAX, "%.4000s/kernel-0123abcd.cu", c.failed);
  snprintf(path[3], PATH_MAX, "%.4000s/thesis.cu", c.failed);
  assert_true(mk_dir_make(c.failed, 0700, &st));
  for (int i = 0; i < 4; i++) assert_true(mk_file_publish(path[i], "x", 1, &st));
  assert_int_equal(visit(&c).states[MK_CACHE_LEFTOVER], 1);
  mk_cache_size removed;
  assert_true(mk_cache_clear(&c, &removed, &st));
  assert_int_equal(removed.entries, 1);
  assert_false(mk_file_exists(s.path));
  assert_false(mk_file_exists(path[0]));
  assert_true(mk_file_exists(path[1]));
  assert_false(mk_file_exists(path[2]));
  assert_true(mk_file_exists(path[3]));
  assert_int_equal(look_up(&c), 0);
}

int main(void) {
  setenv("MOONKILN_LOG", "error", 1); /* hundreds of entries are damaged here */
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, drop_folder)
  const struct CMUnitTest tests[] = {
      TEST(keeps_and_gives_back),
      TEST(damage_is_noticed_and_repaired),
      TEST(equal_hashes_are_told_apart),
      TEST(many_processes_at_once),
      TEST(a_folder_that_cannot_be_used_is_no_failure),
      TEST(a_folder_that_others_can_write_is_refused),
      TEST(clearing_takes_only_what_is_ours),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
