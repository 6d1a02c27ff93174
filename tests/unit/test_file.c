/* Files, hashes, environment: whole reads, all-or-nothing writes, and what happens when the system refuses. */
#include "runtime/base/file.h"
#include "runtime/base/out_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/env.h"
#include "runtime/base/hash.h"
#include "tests/unit/temp_folder.h"

static void publish_then_read(void **state) {
  (void)state;
  mk_status st = {0};
  size_t n;
  for (size_t bytes = 0; bytes < 300000; bytes = bytes * 7 + 1) {
    char *data = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) data[i] = (char)(i * 31);
    assert_true(mk_file_publish(in("a"), data, bytes, &st));
    char *back = mk_file_read(in("a"), &n, &st);
    assert_non_null(back);
    assert_int_equal(n, bytes);
    assert_memory_equal(back, data, bytes);
    assert_int_equal(back[n], 0);
    mk_map map;
    assert_true(mk_file_map(in("a"), &map, &st));
    assert_int_equal(map.bytes, bytes);
    if (bytes) assert_memory_equal(map.data, data, bytes);
    mk_file_unmap(&map);
    free(back);
    free(data);
  }
  assert_int_equal(files_in_folder(), 1);
}

static void reads_pipes(void **state) {
  (void)state;
  mk_status st = {0};
  int fd[2];
  assert_int_equal(pipe(fd), 0);
  char big[20000], path[32];
  memset(big, 'x', sizeof big);
  assert_int_equal(write(fd[1], big, sizeof big), sizeof big);
  close(fd[1]);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd[0]);
  size_t n;
  char *data = mk_file_read(path, &n, &st);
  assert_non_null(data);
  assert_int_equal(n, sizeof big);
  free(data);
  close(fd[0]);
}

static void messages_name_file_and_reason(void **state) {
  (void)state;
  mk_status st = {0};
  mk_map map;
  assert_null(mk_file_read(in("absent"), NULL, &st));
  assert_int_equal(st.code, MK_EINPUT);
  assert_non_null(strstr(st.message, "absent"));
  assert_non_null(strstr(st.message, "No such file"));
  st = (mk_status){0};
  assert_null(mk_file_read(folder, NULL, &st));
  assert_non_null(strstr(st.message, "is a folder"));
  st = (mk_status){0};
  assert_false(mk_file_map("/dev/null", &map, &st));
  assert_non_null(strstr(st.message, "regular"));
  st = (mk_status){0};
  assert_false(mk_file_publish(folder, "x", 1, &st));
  assert_non_null(strstr(st.message, "folder"));
  st = (mk_status){0};
  assert_false(mk_file_publish(in("no/such/file"), "x", 1, &st));
  assert_non_null(strstr(st.message, "no/such/file"));
}

static void full_disk_leaves_nothing(void **state) {
  (void)state;
  mk_status st = {0};
  assert_true(mk_file_publish(in("kept"), "old", 3, &st));
  /* A file size limit refuses like a full disk does. */
  struct rlimit old, small;
  getrlimit(RLIMIT_FSIZE, &old);
  small = (struct rlimit){4096, old.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  char *big = calloc(1, 100000);
  bool ok = mk_file_publish(in("kept"), big, 100000, &st);
  setrlimit(RLIMIT_FSIZE, &old);
  free(big);
  assert_false(ok);
  assert_int_equal(st.code, MK_EIO);
  assert_non_null(strstr(st.message, "kept"));
  st = (mk_status){0};
  size_t n;
  char *data = mk_file_read(in("kept"), &n, &st);
  assert_string_equal(data, "old");
  free(data);
  assert_int_equal(files_in_folder(), 1);
  assert_false(mk_file_publish("/dev/full", "x", 1, &st));
  assert_non_null(strstr(st.message, "No space"));
  assert_false(mk_file_exists("/dev/full.tmp"));
}

static void a_new_name_is_taken_once(void **state) {
  (void)state;
  mk_status st = {0};
  for (int i = 0; i < 2; i++) {
    bool there = i == 0;
    mk_out_file *f = mk_out_open(in("name"), &st);
    assert_true(mk_out_write(f, i ? "second" : "first", 5, &st));
    assert_true(mk_out_commit_new(f, 0640, &there, &st));
    assert_int_equal(there, i == 1);
  }
  struct stat info;
  assert_int_equal(stat(in("name"), &info), 0);
  assert_int_equal(info.st_mode & 0777, 0640);
  char *data = mk_file_read(in("name"), NULL, &st);
  assert_string_equal(data, "first");
  free(data);
  assert_int_equal(files_in_folder(), 1);
}

static void files_of_others_are_not_read(void **state) {
  (void)state;
  mk_status st = {0};
  assert_true(mk_file_publish(in("code"), "x", 1, &st));
  static const mode_t modes[] = {0644, 0622, 0620, 0602};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    chmod(in("code"), modes[i]);
    char *data = mk_file_read_ours(in("code"), NULL, &st);
    assert_int_equal(data != NULL, i == 0);
    free(data);
  }
  assert_non_null(strstr(st.message, "written by others"));
  struct stat info = {.st_mode = S_IFREG | 0600, .st_uid = geteuid() + 1};
  assert_false(mk_file_is_ours(&info));
  info.st_uid = 0;
  assert_true(mk_file_is_ours(&info));
}

static void publishing_keeps_links(void **state) {
  (void)state;
  mk_status st = {0};
  assert_true(mk_file_publish(in("target"), "old", 3, &st));
  assert_int_equal(symlink("target", in("link")), 0);
  assert_true(mk_file_publish(in("link"), "new", 3, &st));
  struct stat info;
  assert_int_equal(lstat(in("link"), &info), 0);
  assert_true(S_ISLNK(info.st_mode));
  char *data = mk_file_read(in("target"), NULL, &st);
  assert_string_equal(data, "new");
  free(data);
}

static void makes_folders(void **state) {
  (void)state;
  mk_status st = {0};
  assert_true(mk_dir_make(in("p/q/r"), 0700, &st));
  assert_true(mk_dir_make(in("p/q/r"), 0700, &st));
  assert_true(mk_dir_exists(in("p/q/r")));
  assert_false(mk_file_exists(in("p/q/r")));
  assert_true(mk_file_publish(in("p/file"), "x", 1, &st));
  assert_false(mk_dir_make(in("p/file"), 0700, &st));
  assert_non_null(strstr(st.message, "in the way"));
  st = (mk_status){0};
  assert_false(mk_dir_make(in("p/file/below"), 0700, &st));
  st = (mk_status){0};
  assert_false(mk_dir_make("", 0700, &st));
}

static void hashes(void **state) {
  (void)state;
  char hex[MK_HASH_HEX];
  assert_string_equal(mk_hash_hex("", 0, hex), "99aa06d3014798d86001c324468d497f"); /* xxh3's published value */
  char data[1000];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 17);
  uint64_t whole = mk_hash64(data, sizeof data);
  const mk_piece pieces[] = {{data, 1}, {data + 1, 0}, {data + 1, 700}, {data + 701, 299}};
  assert_int_equal(mk_hash64_pieces(pieces, 4), whole);
  for (size_t i = 0; i < sizeof data; i += 37) {
    data[i] ^= 1;
    assert_int_not_equal(mk_hash64(data, sizeof data), whole);
    data[i] ^= 1;
  }
}

static void environment(void **state) {
  (void)state;
  static mk_env env;
  mk_status st = {0};
  setenv("MOONKILN_CACHE", "/somewhere", 1);
  setenv("MOONKILN_WORKERS", "3", 1);
  mk_env_read(&env);
  assert_string_equal(env.cache_dir, "/somewhere");
  assert_int_equal(env.worker_count, 3);
  unsetenv("MOONKILN_CACHE");
  setenv("XDG_CACHE_HOME", "/xdg", 1);
  mk_env_read(&env);
  assert_string_equal(env.cache_dir, "/xdg/moonkiln");
  setenv("XDG_CACHE_HOME", "relative", 1);
  setenv("HOME", "/home/moon", 1);
  mk_env_read(&env);
  assert_string_equal(env.cache_dir, "/home/moon/.cache/moonkiln");
  assert_true(mk_env_check(&st));
  static const char *const bad[][2] = {{"MOONKILN_WORKERS", "0"},        {"MOONKILN_WORKERS", "many"},
                                       {"MOONKILN_THREADS", "-1"},       {"MOONKILN_LOG", "loud"},
                                       {"MOONKILN_DATA", "/absent"},     {"MOONKILN_WORKERS", "1e3"},
                                       {"MOONKILN_CACHE_LIMIT", "-1"},   {"MOONKILN_CACHE_LIMIT", "3X"},
                                       {"MOONKILN_CACHE_LIMIT", "3GB"},  {"MOONKILN_CACHE_LIMIT", "99999999999G"},
                                       {"MOONKILN_CACHE_LIMIT", "much"}, {"MOONKILN_THREADS", "99999999999999999999"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    st = (mk_status){0};
    setenv(bad[i][0], bad[i][1], 1);
    assert_false(mk_env_check(&st));
    assert_non_null(strstr(st.message, bad[i][0]));
    assert_non_null(strstr(st.message, bad[i][1]));
    unsetenv(bad[i][0]);
    mk_env_read(&env);
    assert_true(env.worker_count >= 1 && env.thread_count >= 1);
  }
  static const struct {
    const char *text;
    int64_t bytes;
  } sizes[] = {{"0", 0}, {"17", 17}, {"3K", 3072}, {"500M", 500 << 20}, {"2G", 2ll << 30}, {"off", INT64_MAX}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    setenv("MOONKILN_CACHE_LIMIT", sizes[i].text, 1);
    mk_env_read(&env);
    st = (mk_status){0};
    assert_true(mk_env_check(&st));
    assert_true(env.cache_bytes == sizes[i].bytes);
  }
  unsetenv("MOONKILN_CACHE_LIMIT");
  unsetenv("MOONKILN_SYSTEM_CACHE");
  mk_env_read(&env);
  assert_true(env.cache_bytes == 1ll << 30);
  assert_string_equal(env.system_dir, "/var/cache/moonkiln");
  setenv("MOONKILN_SYSTEM_CACHE", "off", 1);
  mk_env_read(&env);
  assert_string_equal(env.system_dir, "");
  unsetenv("MOONKILN_SYSTEM_CACHE");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(publish_then_read, make_folder, drop_folder),
      cmocka_unit_test(reads_pipes),
      cmocka_unit_test_setup_teardown(messages_name_file_and_reason, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(full_disk_leaves_nothing, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(a_new_name_is_taken_once, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(files_of_others_are_not_read, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(publishing_keeps_links, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(makes_folders, make_folder, drop_folder),
      cmocka_unit_test(hashes),
      cmocka_unit_test(environment),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
