/* The safetensors reader against damaged files, the writer against a full disk, and both against each other. */
#include "runtime/model/safetensors.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/temp_folder.h"

static char file[64];

static int make_file_folder(void **state) {
  if (make_folder(state)) return -1;
  snprintf(file, sizeof file, "%s/a.safetensors", folder);
  return 0;
}

/* header as text, padded to 8; then `bytes` bytes of data; `length` < 0: the true header length */
static void craft(const char *header, size_t bytes, int64_t length) {
  FILE *f = fopen(file, "wb");
  size_t n = strlen(header), padded = (n + 7) / 8 * 8;
  uint64_t stored = length < 0 ? padded : (uint64_t)length;
  fwrite(&stored, 8, 1, f);
  fprintf(f, "%-*s", (int)padded, header);
  for (size_t i = 0; i < bytes; i++) fputc((int)i, f);
  fclose(f);
}

static void refused(const char *const *words) {
  mk_status st = {0};
  mk_tensor_file *f = mk_tensor_file_open(file, &st);
  if (f) fail_msg("opened, though it is wrong in %s", words[0] ? words[0] : "something");
  assert_int_equal(st.code, MK_EINPUT);
  if (!strstr(st.message, file)) fail_msg("no file name in: %s", st.message);
  for (int i = 0; words[i]; i++)
    if (!strstr(st.message, words[i])) fail_msg("no \"%s\" in: %s", words[i], st.message);
}

#define T(name, dtype, shape, from, to) \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void bad_headers(void **state) {
  (void)state;
  static const struct {
    const char *header;
    size_t bytes;
    int64_t length;
    const char *words[4];
  } cases[] = {
      {"{" T("w", "F32", "[2,3]", 0, 24) "}", 24, 1 << 20, {"header length", "truncated"}},
      {"{" T("w", "F32", "[2,3]", 0, 24) "}", 24, INT64_MAX, {"header length", "limit"}},
      {"{" T("w", "F32", "[2,3]", 0, 24) "}", 24, 0, {"header"}},
      {"[1,2]", 0, -1, {"header"}},
      {"{\"w\":{\"dtype\":\"F32\",", 24, -1, {"header", "JSON", "line"}},
      {"{" T("w", "F32", "[2,3]", 0, 24) "} x", 24, -1, {"JSON"}},
      {"{" T("w", "F32", "[6]", 0, 24) "," T("w", "F32", "[6]", 0, 24) "}", 24, -1, {"duplicate", "\"w\""}},
      {"{" T("w", "F32", "[2,3]", 0, 24) "}", 20, -1, {"\"w\"", "data_offsets", "truncated"}},
      {"{" T("w", "F32", "[2,3]", 0, 24) "}", 28, -1, {"4 bytes", "after the last tensor"}},
      {"{" T("w", "F32", "[2,4]", 0, 24) "}", 24, -1, {"\"w\"", "shape", "[2, 4]"}},
      {"{" T("w", "BF16", "[2,3]", 0, 24) "}", 24, -1, {"\"w\"", "dtype", "BF16"}},
      {"{" T("a", "F32", "[3]", 0, 12) "," T("b", "F32", "[3]", 8, 20) "}", 20, -1, {"\"b\"", "overlaps", "\"a\""}},
      {"{" T("a", "F32", "[3]", 0, 12) "," T("b", "F32", "[3]", 0, 12) "}", 12, -1, {"overlaps"}},
      {"{" T("a", "F32", "[3]", 0, 12) "," T("b", "F32", "[3]", 16, 28) "}", 28, -1, {"\"b\"", "belong to no tensor"}},
      {"{" T("a", "F32", "[3]", 12, 0) "}", 12, -1, {"\"a\"", "data_offsets"}},
      {"{" T("a", "F32", "[3]", -4, 8) "}", 12, -1, {"\"a\"", "data_offsets"}},
      {"{" T("a", "F32", "[-3]", 0, 12) "}", 12, -1, {"\"a\"", "shape"}},
      {"{" T("a", "F32", "[1.5]", 0, 12) "}", 12, -1, {"\"a\"", "shape"}},
      {"{" T("a", "F32", "3", 0, 12) "}", 12, -1, {"\"a\"", "shape"}},
      {"{" T("a", "F32", "[4294967296,4294967296]", 0, 12) "}", 12, -1, {"\"a\"", "shape"}},
      {"{" T("a", "F32", "[9223372036854775807]", 0, 12) "}", 12, -1, {"\"a\"", "shape"}},
      {"{" T("a", "F32", "[99999999999999999999]", 0, 12) "}", 12, -1, {"JSON"}},
      {"{" T("a", "BF16", "[1]", 0, 2) "," T("b", "F32", "[1]", 2, 6) "}", 6, -1, {"\"b\"", "aligned"}},
      {"{\"a\":{\"shape\":[3],\"data_offsets\":[0,12]}}", 12, -1, {"\"a\"", "dtype"}},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,12]}}", 12, -1, {"\"a\"", "shape"}},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3]}}", 12, -1, {"\"a\"", "data_offsets"}},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12,24]}}", 12, -1, {"\"a\"", "data_offsets"}},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,1e1]}}", 12, -1, {"\"a\"", "data_offsets"}},
      {"{\"a\":7}", 0, -1, {"\"a\""}},
      {"{\"__metadata__\":{\"x\":1}}", 0, -1, {"__metadata__", "\"x\""}},
      {"{\"__metadata__\":[]}", 0, -1, {"__metadata__"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    craft(cases[i].header, cases[i].bytes, cases[i].length);
    refused(cases[i].words);
  }
}

/* A good file cut anywhere is refused; no length reads beyond the map. */
static void truncated_anywhere(void **state) {
  (void)state;
  craft("{" T("a", "F32", "[3]", 0, 12) "," T("b", "BF16", "[2,2]", 12, 20) "}", 20, -1);
  mk_status st = {0};
  mk_tensor_file *f = mk_tensor_file_open(file, &st);
  assert_non_null(f);
  size_t whole = f->map.bytes;
  mk_tensor_file_close(f);
  for (size_t n = whole; n-- > 0;) {
    assert_int_equal(truncate(file, (off_t)n), 0);
    refused((const char *[]){NULL});
  }
}

/* What moonkiln cannot take does not spoil the tensors beside it. */
static void unsupported_only_when_used(void **state) {
  (void)state;
  craft("{" T("d", "F64", "[2]", 0, 16) "," T("f", "F32", "[1]", 16, 20) "," T("n", "F99", "[7]", 20, 24) "," T(
            "r", "F32", "[1,1,1,1,1,1,1]", 24, 28) "}",
        28, -1);
  mk_status st = {0};
  mk_tensor t;
  mk_tensor_file *f = mk_tensor_file_open(file, &st);
  if (!f) fail_msg("%s", st.message);
  assert_true(mk_entry_fetch(f, mk_tensor_file_find(f, "f"), &t, &st));
  assert_ptr_equal(t.data, f->map.data + f->map.bytes - 12);
  static const char *const cases[][2] = {{"d", "F64"}, {"n", "F99"}, {"r", "7 dimensions"}};
  for (int i = 0; i < 3; i++) {
    st = (mk_status){0};
    assert_false(mk_entry_fetch(f, mk_tensor_file_find(f, cases[i][0]), &t, &st));
    assert_int_equal(st.code, MK_EUNSUPPORTED);
    assert_non_null(strstr(st.message, file));
    assert_non_null(strstr(st.message, cases[i][1]));
  }
  mk_tensor_file_close(f);
}

static void int64_becomes_int32(void **state) {
  (void)state;
  FILE *f = fopen(file, "wb");
  char header[121];
  snprintf(header, sizeof header, "%-120s", "{" T("i", "I64", "[2]", 0, 16) "," T("j", "I64", "[]", 16, 24) "}");
  uint64_t n = 120;
  int64_t values[3] = {-5, 2147483647, 2147483648};
  fwrite(&n, 8, 1, f), fwrite(header, 120, 1, f), fwrite(values, 8, 3, f);
  fclose(f);
  mk_status st = {0};
  mk_tensor t;
  mk_tensor_file *tf = mk_tensor_file_open(file, &st);
  if (!tf) fail_msg("%s", st.message);
  assert_true(mk_entry_fetch(tf, mk_tensor_file_find(tf, "i"), &t, &st));
  assert_int_equal(t.dtype, MK_I32);
  assert_int_equal(t.bytes, 8);
  assert_int_equal(((const int32_t *)t.data)[0], -5);
  assert_int_equal(((const int32_t *)t.data)[1], 2147483647);
  assert_false(mk_entry_fetch(tf, mk_tensor_file_find(tf, "j"), &t, &st));
  assert_non_null(strstr(st.message, "2147483648"));
  mk_tensor_file_close(tf);
}

static const float two[] = {1.5f, -2};
static const uint16_t halves[] = {1, 2, 3};

static void round_trip(void **state) {
  (void)state;
  mk_status st = {0};
  mk_tensor tensors[] = {
      {.name = "half", .dtype = MK_BF16, .rank = 1, .dims = {3}, .data = halves, .bytes = 6},
      {.name = "quoted \"name\" \xe7\x8c\xab", .dtype = MK_F32, .rank = 2, .dims = {1, 2}, .data = two, .bytes = 8},
      {.name = "scalar", .dtype = MK_F32, .data = two, .bytes = 4},
      {.name = "empty", .dtype = MK_I32, .rank = 1, .dims = {0}, .data = two},
  };
  const char *metadata[] = {"prompt", "a \"cat\"", "seed", "42"};
  if (!mk_safetensors_save(file, tensors, 4, metadata, 2, &st)) fail_msg("%s", st.message);
  mk_tensor_file *f = mk_tensor_file_open(file, &st);
  if (!f) fail_msg("%s", st.message);
  assert_int_equal(f->count, 4);
  assert_string_equal(mk_tensor_file_metadata(f, "prompt"), "a \"cat\"");
  assert_null(mk_tensor_file_metadata(f, "steps"));
  for (int i = 0; i < 4; i++) {
    mk_tensor t;
    assert_true(mk_entry_fetch(f, mk_tensor_file_find(f, tensors[i].name), &t, &st));
    assert_int_equal(t.dtype, tensors[i].dtype);
    assert_int_equal(t.rank, tensors[i].rank);
    assert_memory_equal(t.dims, tensors[i].dims, sizeof t.dims);
    assert_int_equal(t.bytes, tensors[i].bytes);
    if (t.bytes) assert_memory_equal(t.data, tensors[i].data, t.bytes);
  }
  mk_tensor_file_close(f);
  assert_int_equal(files_in_folder(), 1);
}

static void writer_checks_its_caller(void **state) {
  (void)state;
  mk_tensor t = {.name = "w", .dtype = MK_F32, .rank = 1, .dims = {2}, .bytes = 8};
  mk_status st = {0};
  mk_st_writer *w = mk_st_create(file, &t, 1, NULL, 0, &st);
  assert_non_null(w);
  assert_true(mk_st_write(w, two, 4, &st));
  assert_false(mk_st_commit(w, &st)); /* four bytes are missing */
  assert_int_equal(files_in_folder(), 0);
  st = (mk_status){0};
  w = mk_st_create(file, &t, 1, NULL, 0, &st);
  assert_true(mk_st_write(w, two, 8, &st));
  assert_false(mk_st_write(w, two, 1, &st));
  mk_st_discard(w);
  assert_int_equal(files_in_folder(), 0);
  mk_tensor twice[] = {t, t};
  st = (mk_status){0};
  assert_null(mk_st_create(file, twice, 2, NULL, 0, &st));
  assert_non_null(strstr(st.message, "\"w\""));
  assert_int_equal(files_in_folder(), 0);
}

/* A limit on file size fails the write as a full disk does. */
static void full_disk(void **state) {
  (void)state;
  static float big[100000];
  mk_tensor t = {.name = "w", .dtype = MK_F32, .rank = 1, .dims = {100000}, .data = big, .bytes = sizeof big};
  struct rlimit old, limit;
  getrlimit(RLIMIT_FSIZE, &old);
  limit = old;
  limit.rlim_cur = 4096;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  mk_status st = {0};
  bool ok = mk_safetensors_save(file, &t, 1, NULL, 0, &st);
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_DFL);
  assert_false(ok);
  assert_int_equal(st.code, MK_EIO);
  assert_non_null(strstr(st.message, file));
  assert_int_equal(files_in_folder(), 0);
}

static void bad_places(void **state) {
  (void)state;
  mk_tensor t = {.name = "w", .dtype = MK_F32, .rank = 1, .dims = {2}, .data = two, .bytes = 8};
  mk_status st = {0};
  assert_false(mk_safetensors_save("/nowhere/at/all.safetensors", &t, 1, NULL, 0, &st));
  assert_non_null(strstr(st.message, "/nowhere/at/all.safetensors"));
  st = (mk_status){0};
  assert_false(mk_safetensors_save(folder, &t, 1, NULL, 0, &st));
  assert_non_null(strstr(st.message, "folder"));
  st = (mk_status){0};
  assert_false(mk_safetensors_save("/proc/x.safetensors", &t, 1, NULL, 0, &st)); /* not writable, even for root */
  assert_non_null(strstr(st.message, "/proc/x.safetensors"));
  st = (mk_status){0};
  assert_false(mk_safetensors_save("/dev/full", &t, 1, NULL, 0, &st));
  assert_int_equal(st.code, MK_EIO);
  st = (mk_status){0};
  assert_null(mk_tensor_file_open("/nowhere.safetensors", &st));
  assert_non_null(strstr(st.message, "/nowhere.safetensors"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(bad_headers, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(truncated_anywhere, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(unsupported_only_when_used, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(int64_becomes_int32, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(round_trip, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(writer_checks_its_caller, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(full_disk, make_file_folder, drop_folder),
      cmocka_unit_test_setup_teardown(bad_places, make_file_folder, drop_folder),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
