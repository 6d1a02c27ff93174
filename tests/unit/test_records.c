/* Tuning records as text, as a set, and on disk with several processes about. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/gpu/records.h"
#include "tests/unit/temp_folder.h"

static const mk_tune_environment here = {
    .gpu = "Made-up GPU 9000", .sms = 132, .driver = 13, .nvrtc_major = 13, .nvrtc_minor = 1};

static mk_record_entry some_entries[] = {
    {MK_RUNNER_BEST, 1.25, 0, 0x0123456789abcdefu, "matmul_wgmma tile_m=128 tile_n=256"},
    {MK_RUNNER_IN, 1.3, 2e-3, 1, "cublaslt @66-20-35-1"},
    {MK_RUNNER_WRONG, -1, 0.7, 2, "matmul_mma stages=4"},
    {MK_RUNNER_MODEL, -1, -1, 3, "matmul_simt"},
};

static mk_record record(uint64_t signature, int flop, int bytes, const char *date) {
  return (mk_record){signature, flop, bytes, date, "blocks.0.ffn.0: matmul add", 4, some_entries};
}

#define NOON "2026-11-22T12:00:00Z"
#define LATER "2026-11-22T12:00:01Z"

static bool parses(const char *text, mk_records *r) {
  mk_status st = {0};
  *r = (mk_records){0};
  return mk_records_parse(r, text, &st);
}

/* ---- text */

static void there_and_back(void **state) {
  (void)state;
  mk_records r = {.environment = here}, back;
  mk_record a = record(0xfedcba9876543210u, 165, 126, NOON), b = record(1, 0, 8, LATER);
  mk_text text = {0}, again = {0};
  b.name = "odd | name\nof a group";
  mk_records_add(&r, &a);
  mk_records_add(&r, &b);
  mk_records_print(&r, &text);
  assert_true(parses(mk_text_str(&text), &back));
  assert_int_equal(back.damaged, 0);
  assert_int_equal(back.count, 2);
  mk_records_print(&back, &again);
  assert_string_equal(mk_text_str(&text), mk_text_str(&again));
  const mk_record *x = &back.items[1];
  assert_true(x->signature == a.signature && x->flop == 165 && x->bytes == 126 && x->count == 4);
  assert_string_equal(x->entries[0].label, some_entries[0].label);
  assert_true(x->entries[0].code == some_entries[0].code);
  assert_float_equal(x->entries[1].ms, 1.3, 1e-9);
  assert_true(x->entries[2].ms < 0 && x->entries[3].error < 0);
  assert_string_equal(back.items[0].name, "odd   name of a group");
  mk_text_free(&text);
  mk_text_free(&again);
  mk_records_free(&r);
  mk_records_free(&back);
}

static const char head[] = "# moonkiln tuning records, version 2\nenvironment gpu=X | sms=1 | driver=13 | nvrtc=13.0\n";

static void foreign_texts_are_refused(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      "\n",
      "# moonkiln tuning records, version 2\n",
      "ELF\x7f\n",
      "# moonkiln tuning records, version 2\n",
      "# moonkiln tuning records, version 2\n0000000000000001 1.00 1.00 " NOON " | n | best 1 - 1 x\n",
      "# moonkiln tuning records, version 2\nenvironment gpu= | sms=1 | driver=13 | nvrtc=13.0\n",
      "# moonkiln tuning records, version 2\nenvironment gpu=X | sms=1 | driver=13\n",
      "# moonkiln tuning records, version 2\nenvironment gpu=X | sms=1 | driver=13 | nvrtc=13.0 and more\n"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    mk_records r = {0};
    mk_status st = {0};
    if (mk_records_parse(&r, texts[i], &st)) fail_msg("accepted: %s", texts[i]);
    assert_int_equal(st.code, MK_EINPUT);
    mk_records_free(&r);
  }
}

static void damaged_lines_are_left_out(void **state) {
  (void)state;
  static const char good[] = "00000000000000aa 1.00 2.25 " NOON " | name | best 1.0 - 00000000000000bb label";
  static const char *const bad[] = {
      "rubbish",
      "00000000000000aa 1.00 2.25 " NOON " | name",
      "0000000000000aa 1.00 2.25 " NOON " | name | best 1.0 - 00000000000000bb label",
      "00000000000000aa -1 2.25 " NOON " | name | best 1.0 - 00000000000000bb label",
      "00000000000000aa 1.00 999 " NOON " | name | best 1.0 - 00000000000000bb label",
      "00000000000000aa 1.00 2.25 yesterday | name | best 1.0 - 00000000000000bb label",
      "00000000000000aa 1.00 2.25 " NOON " | name | timed 1.0 - 00000000000000bb label",
      "00000000000000aa 1.00 2.25 " NOON " | name | best nan - 00000000000000bb label",
      "00000000000000aa 1.00 2.25 " NOON " | name | best 1.0 - 00000000000000bb label | timed 2",
      "00000000000000aa 1.00 2.25 " NOON " | name | best 1.0 - 00000000000000bb ",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    mk_text text = {0};
    mk_records r;
    mk_text_addf(&text, "%s%s\n\n# a comment\n%s\n", head, bad[i], good);
    assert_true(parses(mk_text_str(&text), &r));
    if (r.damaged != 1 || r.count != 1) fail_msg("%d damaged, %d good: %s", r.damaged, r.count, bad[i]);
    mk_records_free(&r);
    mk_text_free(&text);
  }
}

/* Cut at every length and changed in every byte: nothing crashes, and no line is taken that was not there. */
static void any_damage(void **state) {
  (void)state;
  mk_records r = {.environment = here}, got;
  mk_record a = record(10, 4, 8, NOON), b = record(11, 5, 9, LATER);
  mk_text text = {0};
  mk_records_add(&r, &a);
  mk_records_add(&r, &b);
  mk_records_print(&r, &text);
  for (size_t n = 0; n < text.len; n++) {
    char *cut = strndup(text.data, n);
    if (parses(cut, &got)) assert_true(got.count + got.damaged <= 2);
    mk_records_free(&got);
    free(cut);
    char kept = text.data[n];
    for (int bit = 0; bit < 8; bit += 3) {
      text.data[n] = (char)(kept ^ (1 << bit));
      if (parses(mk_text_str(&text), &got)) assert_true(got.count <= 3);
      mk_records_free(&got);
    }
    text.data[n] = kept;
  }
  mk_text_free(&text);
  mk_records_free(&r);
}

/* ---- the set */

static void newest_wins_in_any_order(void **state) {
  (void)state;
  mk_record old = record(5, 4, 4, NOON), new = record(5, 4, 4, LATER), other = record(5, 4, 4, LATER);
  mk_record_entry faster[] = {{MK_RUNNER_BEST, 1, 0, 9, "another"}};
  other.entries = faster;
  other.count = 1;
  const mk_record *orders[][3] = {{&old, &new, &other}, {&other, &new, &old}, {&new, &old, &other}};
  mk_text first = {0};
  for (int i = 0; i < 3; i++) {
    mk_records r = {.environment = here};
    mk_text text = {0};
    for (int k = 0; k < 3; k++) mk_records_add(&r, orders[i][k]);
    assert_int_equal(r.count, 1);
    assert_string_equal(r.items[0].date, LATER);
    mk_records_print(&r, &text);
    if (i == 0) mk_text_add(&first, mk_text_str(&text));
    assert_string_equal(mk_text_str(&text), mk_text_str(&first));
    mk_text_free(&text);
    mk_records_free(&r);
  }
  mk_text_free(&first);
}

static void measured_before_used(void **state) {
  (void)state;
  mk_record measured = record(5, 4, 4, NOON), used = record(5, 4, 4, LATER);
  mk_record_entry chosen[] = {{MK_RUNNER_USED, -1, -1, 9, "another"}};
  used.entries = chosen;
  used.count = 1;
  const mk_record *orders[][2] = {{&measured, &used}, {&used, &measured}};
  for (int i = 0; i < 2; i++) {
    mk_records r = {.environment = here}, again;
    mk_text text = {0};
    mk_records_add(&r, orders[i][0]);
    mk_records_print(&r, &text); /* either can be read */
    assert_true(parses(mk_text_str(&text), &again) && again.count == 1 && !again.damaged);
    mk_records_add(&again, orders[i][1]);
    assert_true(again.count == 1 && mk_record_is_measured(&again.items[0]));
    mk_text_free(&text);
    mk_records_free(&again);
    mk_records_free(&r);
  }
}

static void of_a_signature(void **state) {
  (void)state;
  mk_records r = {.environment = here};
  static const uint64_t signatures[] = {9, 5, 5, 7, 5};
  int count;
  for (int i = 0; i < 5; i++) {
    mk_record x = record(signatures[i], i, i, NOON);
    mk_records_add(&r, &x);
  }
  const mk_record *all = mk_records_of(&r, 5, &count);
  assert_int_equal(count, 3);
  for (int i = 0; i < count; i++) assert_true(all[i].signature == 5);
  for (uint64_t none = 4; none <= 10; none += 2) {
    mk_records_of(&r, none, &count);
    assert_int_equal(count, 0);
  }
  mk_records_free(&r);
}

static bool not_the_nearest(void *user, const mk_record *r) { return r->flop != *(int *)user; }

static void nearest(void **state) {
  (void)state;
  mk_records r = {.environment = here};
  static const int flops[] = {100, 140, 180};
  for (int i = 0; i < 3; i++) {
    mk_record x = record(7, flops[i], 50, NOON);
    mk_records_add(&r, &x);
  }
  mk_record x = record(8, 141, 50, NOON);
  mk_records_add(&r, &x);
  int refused = 140;
  assert_int_equal(mk_records_nearest(&r, 7, 150, 50, NULL, NULL)->flop, 140);
  assert_int_equal(mk_records_nearest(&r, 7, 150, 50, not_the_nearest, &refused)->flop, 180);
  assert_int_equal(mk_records_nearest(&r, 7, 5, 5, NULL, NULL)->flop, 100);
  assert_null(mk_records_nearest(&r, 9, 150, 50, NULL, NULL));
  mk_records_free(&r);
}

static void classes(void **state) {
  (void)state;
  assert_int_equal(mk_record_class(0), 0);
  assert_int_equal(mk_record_class(1024), 40);
  assert_int_equal(mk_record_class(1024 * 1.05), 40); /* a few tokens more are the same class */
  assert_int_equal(mk_record_class(1024 * 1.19), 41);
}

/* ---- files */

static void file_names(void **state) {
  (void)state;
  char name[NAME_MAX + 1];
  mk_tune_environment e = here;
  mk_tune_file_name(&e, name);
  assert_string_equal(name, "made-up-gpu-9000-132sm-driver13-nvrtc13.1.tune");
  snprintf(e.gpu, sizeof e.gpu, "../../NVIDIA (R) X ");
  mk_tune_file_name(&e, name);
  assert_string_equal(name, "nvidia-r-x-132sm-driver13-nvrtc13.1.tune");
}

static void writing_merges(void **state) {
  (void)state;
  mk_status st = {0};
  mk_records r = {0};
  const char *where = in("deep/er");
  assert_int_equal(mk_records_read(where, &here, &r, &st), MK_RECORDS_NONE);
  for (uint64_t i = 0; i < 3; i++) {
    mk_records one = {.environment = here};
    mk_record x = record(i, 4, 4, NOON);
    mk_records_add(&one, &x);
    assert_true(mk_records_write(where, &one, &st));
    mk_records_free(&one);
  }
  assert_int_equal(mk_records_read(where, &here, &r, &st), MK_RECORDS_READ);
  assert_int_equal(r.count, 3);
  mk_records_free(&r);
}

static void others_files_stay(void **state) {
  (void)state;
  char name[NAME_MAX + 1], path[512];
  mk_tune_file_name(&here, name);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  static const char *const texts[] = {"# moonkiln tuning records, version 9\n", "a diary\n", head};
  for (int i = 0; i < 3; i++) {
    mk_status st = {0};
    mk_records r = {0}, mine = {.environment = here};
    mk_record x = record(1, 4, 4, NOON);
    mk_records_add(&mine, &x);
    assert_true(mk_file_publish(path, texts[i], strlen(texts[i]), &st));
    assert_int_equal(mk_records_read(folder, &here, &r, &st), MK_RECORDS_FOREIGN);
    assert_non_null(strstr(st.message, path));
    assert_int_equal(r.count, 0);
    st = (mk_status){0};
    assert_false(mk_records_write(folder, &mine, &st));
    size_t bytes;
    char *now = mk_file_read(path, &bytes, &(mk_status){0});
    assert_string_equal(now, texts[i]);
    free(now);
    mk_records_free(&mine);
    mk_records_free(&r);
  }
}

static void folders_that_cannot_be_written(void **state) {
  (void)state;
  mk_status st = {0};
  mk_records r = {.environment = here};
  mk_record x = record(1, 4, 4, NOON);
  mk_records_add(&r, &x);
  assert_true(mk_file_publish(in("file"), "x", 1, &st));
  assert_false(mk_records_write(in("file"), &r, &st));
  assert_true(mk_failed(&st));
  st = (mk_status){0};
  assert_false(mk_records_write("/proc/nowhere", &r, &st));
  assert_non_null(strstr(st.message, "/proc/nowhere"));
  mk_records_free(&r);
}

/* A process that writes records number first, first + 1 ... in files of one each; forever when count is 0. */
static pid_t writer(uint64_t first, int count) {
  pid_t pid = fork();
  if (pid) return pid;
  mk_status st = {0};
  for (int i = 0; !count || i < count; i++) {
    mk_records one = {.environment = here};
    mk_record x = record(first + (uint64_t)i % 64, 4, 4, i < 64 ? NOON : LATER);
    mk_records_add(&one, &x);
    if (!mk_records_write(folder, &one, &st)) _exit(1);
    mk_records_free(&one);
  }
  _exit(0);
}

static void eight_processes_lose_nothing(void **state) {
  (void)state;
  enum { PROCESSES = 8, EACH = 20 };
  pid_t pids[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) pids[i] = writer(1000 * (uint64_t)i, EACH);
  for (int i = 0; i < PROCESSES; i++) {
    int status;
    waitpid(pids[i], &status, 0);
    assert_int_equal(status, 0);
  }
  mk_records r = {0};
  mk_status st = {0};
  assert_int_equal(mk_records_read(folder, &here, &r, &st), MK_RECORDS_READ);
  assert_int_equal(r.count, PROCESSES * EACH);
  assert_int_equal(r.damaged, 0);
  mk_records_free(&r);
}

/* kill -9 at 200 moments: the file is whole each time, and the lock is free again. */
static void killed_writers_leave_it_whole(void **state) {
  (void)state;
  uint32_t x = 1;
  int least = 0;
  for (int i = 0; i < 200; i++) {
    pid_t pid = writer(0, 0);
    x = x * 1664525 + 1013904223;
    usleep(200 + (x >> 16) % 4000);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    mk_records r = {0};
    mk_status st = {0};
    mk_records_found found = mk_records_read(folder, &here, &r, &st);
    assert_true(found == MK_RECORDS_READ || (found == MK_RECORDS_NONE && !least));
    assert_int_equal(r.damaged, 0);
    assert_true(r.count >= least);
    least = r.count;
    mk_records_free(&r);
  }
  assert_true(least > 0);
  pid_t last = writer(5000, 1);
  int status;
  waitpid(last, &status, 0);
  assert_int_equal(status, 0);
  assert_int_equal(files_in_folder(), 2); /* the records and the lock: what the killed left over is gone */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(there_and_back),
      cmocka_unit_test(foreign_texts_are_refused),
      cmocka_unit_test(damaged_lines_are_left_out),
      cmocka_unit_test(any_damage),
      cmocka_unit_test(newest_wins_in_any_order),
      cmocka_unit_test(measured_before_used),
      cmocka_unit_test(of_a_signature),
      cmocka_unit_test(nearest),
      cmocka_unit_test(classes),
      cmocka_unit_test(file_names),
      cmocka_unit_test_setup_teardown(writing_merges, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(others_files_stay, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(folders_that_cannot_be_written, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(eight_processes_lose_nothing, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(killed_writers_leave_it_whole, make_folder, drop_folder),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
