/* Compiling: cubins for every architecture, reports, numbered errors, and a compiler that crashes or hangs. Needs NVRTC, no GPU.
 */
#include "runtime/gpu/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "tests/unit/temp_folder.h"

static const char good[] =
    "extern \"C\" __global__ void __launch_bounds__(256) good(float *x, int n) {\n"
    "  __shared__ float s[64];\n"
    "  int i = blockIdx.x * 256 + threadIdx.x;\n"
    "  if (i >= n) return;\n"
    "  s[threadIdx.x % 64] = x[i];\n"
    "  __syncthreads();\n"
    "  x[i] *= s[(threadIdx.x + 1) % 64];\n"
    "}\n";

static const char wrong[] =
    "extern \"C\" __global__ void wrong(float *x) {\n"
    "  float first = 1;\n"
    "  x[0] = first + second;\n"
    "  x[1] = 2;\n"
    "}\n";

static const char wrong_ptx[] =
    "extern \"C\" __global__ void wrong_ptx(float *x) {\n"
    "  asm volatile(\"frobnicate.f32 %0;\" ::\"f\"(x[0]));\n"
    "}\n";

/* Constant matrix descriptors make ptxas crash. Under the address sanitizer, which sees it first, the process ends by itself. */
#ifdef __SANITIZE_ADDRESS__
#define CRASH_TEXT "ended without a result (exit code 1)"
#else
#define CRASH_TEXT "crashed (signal 11"
#endif
static const char crashing[] =
    "extern \"C\" __global__ void __launch_bounds__(128) crashing(float *x) {\n"
    "  float d[4] = {0, 0, 0, 0};\n"
    "  asm volatile(\"wgmma.fence.sync.aligned;\");\n"
    "  asm volatile(\"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;\"\n"
    "               : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \"l\"(0ull), \"l\"(0ull));\n"
    "  asm volatile(\"wgmma.commit_group.sync.aligned;\");\n"
    "  asm volatile(\"wgmma.wait_group.sync.aligned 0;\");\n"
    "  for (int i = 0; i < 4; i++) x[threadIdx.x * 4 + i] = d[i];\n"
    "}\n";

/* 2^40 template instances: no end in sight. */
static const char endless[] =
    "template <int A, long B> struct F { static constexpr int v = F<A - 1, B * 2>::v + F<A - 1, B * 2 + 1>::v; };\n"
    "template <long B> struct F<0, B> { static constexpr int v = 1; };\n"
    "extern \"C\" __global__ void endless(int *x) { *x = F<40, 1>::v; }\n";

static const char spilling[] =
    "extern \"C\" __global__ void __launch_bounds__(1024) spilling(float *x) {\n"
    "  float a[120];\n"
    "#pragma unroll\n"
    "  for (int i = 0; i < 120; i++) a[i] = x[i * 1024 + threadIdx.x];\n"
    "  for (int j = 0; j < 100; j++) {\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 120; i++) a[i] = a[i] * a[(i * 7 + 1) % 120] + x[j];\n"
    "  }\n"
    "#pragma unroll\n"
    "  for (int i = 0; i < 120; i++) x[i * 1024 + threadIdx.x] = a[i];\n"
    "}\n";

/* An accumulator is read between two wgmma of one group. */
static const char serialized[] =
    "extern \"C\" __global__ void __launch_bounds__(128) serialized(float *x, unsigned long long a, unsigned long long b) {\n"
    "  float d[4] = {0, 0, 0, 0};\n"
    "  asm volatile(\"wgmma.fence.sync.aligned;\");\n"
    "  for (int i = 0; i < 4; i++) {\n"
    "    asm volatile(\"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;\"\n"
    "                 : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \"l\"(a + i), \"l\"(b + i));\n"
    "    d[1] *= x[i];\n"
    "  }\n"
    "  asm volatile(\"wgmma.commit_group.sync.aligned;\");\n"
    "  asm volatile(\"wgmma.wait_group.sync.aligned 0;\");\n"
    "  x[threadIdx.x] = d[0] + d[1];\n"
    "}\n";

static mk_compiler compiler;

static mk_compile_job job(const char *name, const char *source, const char *arch) {
  return (mk_compile_job){.name = name, .source = source, .arch = arch};
}

static bool is_elf(const void *data, size_t bytes) { return bytes > 64 && !memcmp(data, "\177ELF", 4); }

static void assert_has(const char *text, const char *part) {
  if (!text || !strstr(text, part)) fail_msg("\"%s\" is not in: %s", part, text ? text : "(null)");
}

static void every_architecture(void **state) {
  (void)state;
  static const int arches[] = {80, 86, 89, 90, 100, 120};
  enum { N = sizeof arches / sizeof *arches };
  char names[N][16];
  mk_compile_job jobs[N];
  mk_compile_result results[N];
  mk_status st = {0};
  for (int i = 0; i < N; i++) {
    assert_true(mk_arch_name(arches[i], names[i], &st));
    jobs[i] = job("good", good, names[i]);
  }
  assert_string_equal(names[0], "sm_80");
  assert_string_equal(names[3], "sm_90a");
  if (!mk_compile_batch(&compiler, jobs, N, results, NULL, NULL, &st)) fail_msg("%s", st.message);
  for (int i = 0; i < N; i++) {
    if (!results[i].ok) fail_msg("%s", results[i].message);
    assert_true(is_elf(results[i].cubin, results[i].cubin_bytes));
    assert_true(results[i].report.registers > 0);
    assert_true(results[i].report.smem_bytes >= 256);
    assert_int_equal(results[i].report.spill_bytes, 0);
    assert_null(results[i].ptx);
    mk_compile_result_free(&results[i]);
  }
  assert_false(mk_arch_name(75, names[0], &st));
  st = (mk_status){0};
  int arch;
  assert_true(mk_arch_parse("sm_90a", &arch, &st) && arch == 90);
  assert_true(mk_arch_parse("120", &arch, &st) && arch == 120);
  static const char *const bad[] = {"", "sm_", "90b", "-90", "90 ", "1e2", "99999999999"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    st = (mk_status){0};
    assert_false(mk_arch_parse(bad[i], &arch, &st));
  }
}

static void same_bytes_again(void **state) {
  (void)state;
  mk_status st = {0};
  mk_compile_job jobs[2] = {job("good", good, "sm_90a"), job("good", good, "sm_90a")};
  jobs[1].want_ptx = true;
  mk_compile_result r[2];
  assert_true(mk_compile_batch(&compiler, jobs, 2, r, NULL, NULL, &st));
  assert_int_equal(r[0].cubin_bytes, r[1].cubin_bytes);
  assert_memory_equal(r[0].cubin, r[1].cubin, r[0].cubin_bytes);
  assert_has(r[1].ptx, ".visible .entry good");
  for (int i = 0; i < 2; i++) mk_compile_result_free(&r[i]);
}

static void spills_and_serialisation_are_reported(void **state) {
  (void)state;
  mk_status st = {0};
  const mk_compile_job jobs[] = {job("spilling", spilling, "sm_90a"), job("serialized", serialized, "sm_90a")};
  mk_compile_result r[2];
  assert_true(mk_compile_batch(&compiler, jobs, 2, r, NULL, NULL, &st));
  assert_true(r[0].ok && r[1].ok);
  assert_true(r[0].report.spill_bytes > 0 && r[0].report.stack_bytes > 0);
  assert_int_equal(r[0].report.registers, 64);
  assert_false(r[0].report.wgmma_serialized);
  assert_has(r[0].message, "kernel spilling (sm_90a) spills ");
  assert_has(r[0].message, "  >     1 | extern \"C\" __global__ void __launch_bounds__(1024) spilling");
  assert_has(r[0].message, "its source is in ");
  assert_has(r[1].message, "wait for each other");
  assert_true(r[1].report.wgmma_serialized);
  assert_int_equal(r[1].report.spill_bytes, 0);
  mk_text line = {0};
  mk_kernel_report back;
  mk_report_print(&r[0].report, &line);
  assert_true(mk_report_scan(mk_text_str(&line), &back));
  assert_memory_equal(&back, &r[0].report, sizeof back);
  assert_false(mk_report_scan("registers=3", &back));
  mk_text_free(&line);
  for (int i = 0; i < 2; i++) mk_compile_result_free(&r[i]);
}

static void older_and_newer_words_of_ptxas(void **state) {
  (void)state;
  mk_kernel_report r = mk_report_parse_log(
      "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum register requirements.\n"
      "ptxas info    : 24 bytes gmem, 8 bytes cmem[4]\n"
      "ptxas info    : Function properties for k\n"
      "    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n"
      "ptxas info    : Used 168 registers, used 9 barriers, 16 bytes cumulative stack size, 1024 bytes smem, 400 bytes "
      "cmem[0]\n");
  assert_true(r.setmaxnreg_ignored);
  assert_false(r.wgmma_serialized);
  assert_int_equal(r.registers, 168);
  assert_int_equal(r.barriers, 9);
  assert_int_equal(r.smem_bytes, 1024);
  assert_int_equal(r.stack_bytes, 16);
  assert_int_equal(r.spill_bytes, 32);
}

static void errors_show_numbered_source(void **state) {
  (void)state;
  mk_status st = {0};
  const mk_compile_job jobs[] = {job("wrong", wrong, "sm_90a"), job("good", good, "sm_90a"),
                                 job("wrong_ptx", wrong_ptx, "sm_90a"), job("no_such_arch", good, "sm_91a")};
  mk_compile_result r[4];
  assert_true(mk_compile_batch(&compiler, jobs, 4, r, NULL, NULL, &st));
  assert_false(r[0].ok || r[2].ok || r[3].ok);
  assert_true(r[1].ok);
  assert_null(r[0].cubin);
  assert_has(r[0].message, "kernel wrong (sm_90a) does not compile");
  assert_has(r[0].message, "wrong.cu(3): error: identifier \"second\" is undefined");
  assert_has(r[0].message, "       2 |   float first = 1;\n");
  assert_has(r[0].message, "  >     3 |   x[0] = first + second;\n");
  assert_has(r[2].message, "frobnicate");
  assert_has(r[2].message, "  >"); /* the line of PTX */
  assert_has(r[3].message, "newer CUDA toolkit");
  const char *at = strstr(r[0].message, "its source is in ");
  assert_non_null(at);
  char *kept = mk_file_read(at + strlen("its source is in "), NULL, &st);
  assert_non_null(kept);
  assert_string_equal(kept, wrong);
  free(kept);
  for (int i = 0; i < 4; i++) mk_compile_result_free(&r[i]);
}

static void a_crash_costs_one_kernel(void **state) {
  (void)state;
  mk_status st = {0};
  mk_compile_job jobs[8];
  mk_compile_result r[8];
  for (int i = 0; i < 8; i++) jobs[i] = i % 3 == 1 ? job("crashing", crashing, "sm_90a") : job("good", good, "sm_90a");
  assert_true(mk_compile_batch(&compiler, jobs, 8, r, NULL, NULL, &st));
  for (int i = 0; i < 8; i++) {
    assert_int_equal(r[i].ok, i % 3 != 1);
    if (!r[i].ok) {
      assert_has(r[i].message, "kernel crashing (sm_90a): the compiler " CRASH_TEXT);
      const char *at = strstr(r[i].message, "its source is in ");
      assert_non_null(at);
      assert_true(mk_file_exists(at + strlen("its source is in ")));
    }
    mk_compile_result_free(&r[i]);
  }
}

static void a_hang_costs_one_kernel(void **state) {
  (void)state;
  mk_status st = {0};
  mk_compiler hasty = compiler;
  hasty.timeout = 1;
  const mk_compile_job jobs[] = {job("endless", endless, "sm_90a"), job("good", good, "sm_90a"), job("good", good, "sm_80")};
  mk_compile_result r[3];
  assert_true(mk_compile_batch(&hasty, jobs, 3, r, NULL, NULL, &st));
  assert_false(r[0].ok);
  assert_has(r[0].message, "kernel endless (sm_90a): compiling took longer than 1 seconds");
  assert_true(r[1].ok && r[2].ok);
  for (int i = 0; i < 3; i++) mk_compile_result_free(&r[i]);
}

static bool stop_at_once(void *user, const char *what, int64_t done, int64_t total) {
  (void)what;
  (void)done;
  (void)total;
  int *calls = user;
  return ++*calls < 3;
}

static void stopping_is_quick(void **state) {
  (void)state;
  mk_status st = {0};
  const mk_compile_job jobs[] = {job("endless", endless, "sm_90a")};
  mk_compile_result r[1];
  int calls = 0;
  double start = mk_now();
  assert_false(mk_compile_batch(&compiler, jobs, 1, r, stop_at_once, &calls, &st));
  assert_int_equal(st.code, MK_EINTERRUPTED);
  assert_true(mk_now() - start < 5);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no process is left */
}

static void second_time_compiles_nothing(void **state) {
  (void)state;
  mk_status st = {0};
  mk_cache cache;
  mk_cache_open(&cache, folder);
  const mk_kernel kernels[] = {{"good", good, 80, false, 0},
                               {"wrong", wrong, 80, false, 0},
                               {"serialized", serialized, 90, true, 0},
                               {"spilling", spilling, 100, true, 0}};
  bool wanted[4] = {true, true, true, true};
  mk_prepare_options o = {.arch = 90, .wanted = wanted};
  mk_prepared p;
  assert_true(mk_kernels_prepare(kernels, 4, &o, &cache, &p, &st));
  assert_int_equal(p.hits, 0);
  assert_int_equal(p.compiled, 2);
  assert_int_equal(p.failed, 2);
  assert_has(p.cubins[3].message, "sm_100a alone");
  assert_false(mk_prepared_check(&p, &st));
  assert_int_equal(st.code, MK_ECOMPILE);
  assert_has(st.message, "kernel wrong");
  assert_true(p.cubins[2].report.wgmma_serialized);
  st = (mk_status){0};
  mk_prepared again;
  wanted[1] = wanted[3] = false;
  assert_true(mk_kernels_prepare(kernels, 4, &o, &cache, &again, &st));
  assert_int_equal(again.hits, 2);
  assert_int_equal(again.compiled + again.failed, 0);
  assert_true(mk_prepared_check(&again, &st));
  for (int i = 0; i < 4; i += 2) {
    assert_int_equal(again.cubins[i].bytes, p.cubins[i].bytes);
    assert_memory_equal(again.cubins[i].data, p.cubins[i].data, p.cubins[i].bytes);
    assert_memory_equal(&again.cubins[i].report, &p.cubins[i].report, sizeof p.cubins[i].report);
  }
  assert_int_equal(again.cubins[1].state, MK_CUBIN_NONE);
  mk_prepared_free(&again);
  /* Another architecture is another key. */
  o.arch = 89;
  wanted[2] = false;
  assert_true(mk_kernels_prepare(kernels, 4, &o, &cache, &again, &st));
  assert_int_equal(again.compiled, 1);
  mk_prepared_free(&again);
  mk_prepared_free(&p);
}

/* Beside others that are compiled, and never for their own sake. */
static void some_come_along(void **state) {
  (void)state;
  mk_status st = {0};
  mk_cache cache;
  mk_prepared p;
  mk_cache_open(&cache, folder);
  const mk_kernel kernels[] = {
      {"good", good, 80, false, 0}, {"serialized", serialized, 90, true, 0}, {"wrong", wrong, 80, false, 0}};
  const bool first[] = {true, false, false}, second[] = {false, true, false}, along[] = {true, true, true};
  mk_prepare_options o = {.arch = 90, .wanted = first};
  assert_true(mk_kernels_prepare(kernels, 3, &o, &cache, &p, &st));
  assert_int_equal(p.compiled, 1);
  mk_prepared_free(&p);
  o.along = along;
  assert_true(mk_kernels_prepare(kernels, 3, &o, &cache, &p, &st));
  assert_int_equal(p.hits, 1);
  assert_int_equal(p.compiled, 0);
  mk_prepared_free(&p);
  drop_folder(NULL);
  assert_int_equal(make_folder(NULL), 0);
  mk_cache_open(&cache, folder);
  assert_true(mk_kernels_prepare(kernels, 3, &o, &cache, &p, &st));
  assert_int_equal(p.compiled, 2);
  assert_true(mk_prepared_check(&p, &st)); /* that one of them is wrong is nobody's business */
  assert_int_equal(p.cubins[0].state, MK_CUBIN_COMPILED);
  assert_int_equal(p.cubins[1].state, MK_CUBIN_NONE);
  assert_int_equal(p.cubins[2].state, MK_CUBIN_NONE);
  mk_prepared_free(&p);
  o = (mk_prepare_options){.arch = 90, .wanted = second};
  assert_true(mk_kernels_prepare(kernels, 3, &o, &cache, &p, &st));
  assert_int_equal(p.hits, 1);
  mk_prepared_free(&p);
}

static void failures_are_known_the_second_time(void **state) {
  (void)state;
  mk_status st = {0};
  mk_cache cache;
  mk_cache_open(&cache, folder);
  const mk_kernel kernels[] = {{"wrong", wrong, 80, false, 0}, {"crashing", crashing, 90, true, 0}};
  const mk_prepare_options o = {.arch = 90};
  mk_prepared p;
  for (int round = 0; round < 2; round++) {
    assert_true(mk_kernels_prepare(kernels, 2, &o, &cache, &p, &st));
    assert_int_equal(p.failed, 2);
    assert_has(p.cubins[0].message, "identifier \"second\" is undefined");
    assert_int_equal(strstr(p.cubins[0].message, "was not tried again") != NULL, round == 1);
    assert_null(strstr(p.cubins[1].message, "was not tried again")); /* a crash may be the machine's fault */
    mk_prepared_free(&p);
  }
  /* Without a cache there is no memory of it. */
  mk_cache_open(&cache, "/proc/no/such/place");
  assert_true(mk_kernels_prepare(kernels, 1, &o, &cache, &p, &st));
  assert_null(strstr(p.cubins[0].message, "was not tried again"));
  mk_prepared_free(&p);
}

static bool ruin(void *user, const mk_cache_item *item) {
  (void)user;
  return truncate(item->path, item->file_bytes / 2) == 0;
}

static void damaged_entries_are_compiled_again(void **state) {
  (void)state;
  mk_status st = {0};
  mk_cache cache;
  mk_cache_open(&cache, folder);
  const mk_kernel kernels[] = {{"good", good, 80, false, 0}};
  const mk_prepare_options o = {.arch = 90};
  mk_prepared p;
  for (int round = 0; round < 3; round++) {
    assert_true(mk_kernels_prepare(kernels, 1, &o, &cache, &p, &st));
    assert_int_equal(p.compiled, round != 2);
    assert_true(is_elf(p.cubins[0].data, p.cubins[0].bytes));
    mk_prepared_free(&p);
    if (round == 0) mk_cache_visit(&cache, ruin, NULL);
  }
  /* And with no cache at all. */
  mk_cache_open(&cache, "/proc/no/such/place");
  assert_true(mk_kernels_prepare(kernels, 1, &o, &cache, &p, &st));
  assert_int_equal(p.compiled, 1);
  mk_prepared_free(&p);
}

static int make_all(void **state) {
  int bad = make_folder(state);
  snprintf(compiler.failed_dir, sizeof compiler.failed_dir, "%s/failed", folder);
  return bad;
}

int main(void) {
  setenv("MOONKILN_LOG", "error", 1);
  mk_status st = {0};
  if (!mk_compiler_open(&compiler, 0, NULL, &st)) {
    printf("1..0 # SKIP %s\n", st.message);
    return 0;
  }
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_all, drop_folder)
  const struct CMUnitTest tests[] = {
      TEST(every_architecture),
      TEST(same_bytes_again),
      TEST(spills_and_serialisation_are_reported),
      TEST(older_and_newer_words_of_ptxas),
      TEST(errors_show_numbered_source),
      TEST(a_crash_costs_one_kernel),
      TEST(a_hang_costs_one_kernel),
      TEST(stopping_is_quick),
      TEST(second_time_compiles_nothing),
      TEST(some_come_along),
      TEST(failures_are_known_the_second_time),
      TEST(damaged_entries_are_compiled_again),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
