/* The GPU session without a GPU: a driver whose device memory is host memory, and plans made of copies and fills. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "runtime/gpu/executor.h"
#include "runtime/gpu/timing.h"
#include "runtime/gpu/upload.h"

/* ---- the driver */

typedef struct recorded { /* a memory operation inside a graph */
  void *to;
  const void *from; /* NULL: fill */
  unsigned char value;
  size_t bytes;
} recorded;

typedef struct fake_graph {
  recorded ops[16];
  int count;
} fake_graph;

static struct {
  size_t available; /* bytes cuMemGetInfo tells */
  int allocations, graph_launches, events_recorded;
  float elapsed_ms; /* between any two events */
  bool capturing, refuse_capture;
  fake_graph graph;
} fake;

static CUresult fine_context(CUcontext c) { return (void)c, CUDA_SUCCESS; }
static CUresult fine_stream(CUstream s) { return (void)s, CUDA_SUCCESS; }
static CUresult fine_event(CUevent e) { return (void)e, CUDA_SUCCESS; }
static CUresult record_event(CUevent e, CUstream s) { return (void)e, (void)s, fake.events_recorded++, CUDA_SUCCESS; }
static CUresult wait_event(CUstream s, CUevent e, unsigned flags) { return (void)s, (void)e, (void)flags, CUDA_SUCCESS; }
static CUresult elapsed(float *ms, CUevent a, CUevent b) { return (void)a, (void)b, *ms = fake.elapsed_ms, CUDA_SUCCESS; }
static CUresult make_event(CUevent *e, unsigned flags) { return (void)flags, *e = (CUevent)malloc(1), CUDA_SUCCESS; }
static CUresult free_event(CUevent e) { return free(e), CUDA_SUCCESS; }
static CUresult error_text(CUresult r, const char **text) { return (void)r, *text = "made-up error", CUDA_SUCCESS; }
static CUresult host_alloc(void **p, size_t bytes, unsigned flags) { return (void)flags, *p = malloc(bytes), CUDA_SUCCESS; }
static CUresult host_free(void *p) { return free(p), CUDA_SUCCESS; }

static CUresult mem_info(size_t *available, size_t *total) {
  *available = fake.available;
  *total = (size_t)1 << 40;
  return CUDA_SUCCESS;
}

static CUresult mem_alloc(CUdeviceptr *p, size_t bytes) {
  fake.allocations++;
  char *block = malloc(bytes);
  memset(block, 0x5a, bytes);
  *p = (CUdeviceptr)(uintptr_t)block;
  return CUDA_SUCCESS;
}

static CUresult mem_free(CUdeviceptr p) { return free((void *)(uintptr_t)p), CUDA_SUCCESS; }

static void apply(const recorded *r) {
  if (r->from) {
    memmove(r->to, r->from, r->bytes);
  } else {
    memset(r->to, r->value, r->bytes);
  }
}

static CUresult enqueue(recorded r) {
  if (fake.capturing) {
    fake.graph.ops[fake.graph.count++] = r;
  } else {
    apply(&r);
  }
  return CUDA_SUCCESS;
}

static void *at(CUdeviceptr p) { return (void *)(uintptr_t)p; }

static CUresult upload(CUdeviceptr to, const void *from, size_t bytes, CUstream s) {
  return (void)s, enqueue((recorded){at(to), from, 0, bytes});
}
static CUresult download(void *to, CUdeviceptr from, size_t bytes, CUstream s) {
  return (void)s, enqueue((recorded){to, at(from), 0, bytes});
}
static CUresult copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
  return (void)s, enqueue((recorded){at(to), at(from), 0, bytes});
}
static CUresult fill(CUdeviceptr to, unsigned char value, size_t bytes, CUstream s) {
  return (void)s, enqueue((recorded){at(to), NULL, value, bytes});
}

static CUresult begin_capture(CUstream s, CUstreamCaptureMode mode) {
  (void)s, (void)mode;
  fake.capturing = true;
  fake.graph.count = 0;
  return CUDA_SUCCESS;
}

static CUresult end_capture(CUstream s, CUgraph *g) {
  (void)s;
  fake.capturing = false;
  *g = (CUgraph)&fake.graph;
  return fake.refuse_capture ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *exec, CUgraph g, unsigned long long flags) {
  (void)flags;
  fake_graph *copy_of = malloc(sizeof *copy_of);
  memcpy(copy_of, g, sizeof *copy_of);
  *exec = (CUgraphExec)copy_of;
  return CUDA_SUCCESS;
}

static CUresult graph_launch(CUgraphExec exec, CUstream s) {
  (void)s;
  const fake_graph *g = (const fake_graph *)exec;
  for (int i = 0; i < g->count; i++) apply(&g->ops[i]);
  fake.graph_launches++;
  return CUDA_SUCCESS;
}

static CUresult exec_free(CUgraphExec exec) { return free(exec), CUDA_SUCCESS; }
static CUresult graph_free(CUgraph g) { return (void)g, CUDA_SUCCESS; }

static const mk_driver driver = {.version = 13000,
                                 .cuCtxSetCurrent = fine_context,
                                 .cuGetErrorName = error_text,
                                 .cuGetErrorString = error_text,
                                 .cuStreamSynchronize = fine_stream,
                                 .cuStreamWaitEvent = wait_event,
                                 .cuStreamBeginCapture = begin_capture,
                                 .cuStreamEndCapture = end_capture,
                                 .cuEventCreate = make_event,
                                 .cuEventDestroy = free_event,
                                 .cuEventRecord = record_event,
                                 .cuEventSynchronize = fine_event,
                                 .cuEventElapsedTime = elapsed,
                                 .cuMemGetInfo = mem_info,
                                 .cuMemAlloc = mem_alloc,
                                 .cuMemFree = mem_free,
                                 .cuMemHostAlloc = host_alloc,
                                 .cuMemFreeHost = host_free,
                                 .cuMemcpyHtoDAsync = upload,
                                 .cuMemcpyDtoHAsync = download,
                                 .cuMemcpyDtoDAsync = copy,
                                 .cuMemsetD8Async = fill,
                                 .cuGraphInstantiate = instantiate,
                                 .cuGraphLaunch = graph_launch,
                                 .cuGraphExecDestroy = exec_free,
                                 .cuGraphDestroy = graph_free};

/* ---- a plan: the weight comes in through scratch, "y" is it plus nothing, state "s" takes the input */

enum { N = 6, BYTES = N * 4 };

static const mk_launch keep_weight = {
    .kind = MK_LAUNCH_COPY, .dst = {MK_SPACE_LOAD, 256}, .src = {MK_SPACE_SCRATCH, 0}, .bytes = BYTES};
static const mk_launch weight_out = {
    .kind = MK_LAUNCH_COPY, .dst = {MK_SPACE_IO, 256}, .src = {MK_SPACE_LOAD, 256}, .bytes = BYTES};
static const mk_launch state_out = {
    .kind = MK_LAUNCH_COPY, .dst = {MK_SPACE_IO, 512}, .src = {MK_SPACE_STATE, 0}, .bytes = N * 2};
static const mk_launch state_set = {.kind = MK_LAUNCH_COPY, .dst = {MK_SPACE_STATE, 0}, .src = {MK_SPACE_IO, 0}, .bytes = N * 2};
static const mk_lt impossible_lt = {.m = 1, .n = 1, .k = 1};
static const mk_launch impossible = {.kind = MK_LAUNCH_LT, .lt = &impossible_lt};

static const mk_candidate keep_candidates[] = {{.label = "library", .nlaunches = 1, .launches = &impossible, .cost = 0},
                                               {.label = "copy", .nlaunches = 1, .launches = &keep_weight, .cost = 1}};
static const mk_candidate out_candidates[] = {{.label = "copy", .nlaunches = 1, .launches = &weight_out, .cost = 0}};
static const mk_candidate state_candidates[] = {{.label = "copy", .nlaunches = 1, .launches = &state_out, .cost = 0}};
static const mk_candidate set_candidates[] = {{.label = "copy", .nlaunches = 1, .launches = &state_set, .cost = 0}};

typedef struct fixture {
  mk_gpu_device d;
  mk_plan plan;
  mk_group groups[4];
  mk_program programs[3];
  mk_binding weights[1], inputs[1], outputs[2], states[1];
  mk_session *s;
} fixture;

static const mk_step load_steps[] = {{MK_STEP_UPLOAD, 0}, {MK_STEP_GROUP, 0}};
static const mk_step step_steps[] = {{MK_STEP_GROUP, 1}, {MK_STEP_GROUP, 2}, {MK_STEP_GROUP, 3}};
static const float weight_values[N] = {1, -2, 3, 0.5f, 1e6f, -0.25f};

static bool fetch(void *self, const char *name, mk_tensor *out, mk_status *st) {
  if (strcmp(name, "w")) return mk_fail(st, MK_EINPUT, "no tensor %s", name), false;
  *out =
      (mk_tensor){.name = "w", .where = "file", .dtype = MK_F32, .rank = 1, .dims = {N}, .data = weight_values, .bytes = BYTES};
  if (self) out->dims[0] = *(int *)self;
  return true;
}

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  mk_status st = {0};
  memset(&fake, 0, sizeof fake);
  fake.available = (size_t)1 << 30;
  f->d.cu = &driver;
  strcpy(f->d.name, "Made-up GPU");
  mk_fail(&f->d.lt_missing, MK_EGPU, "no library");
  f->groups[0] = (mk_group){.name = "keep", .kind = "copy", .ncandidates = 2, .candidates = keep_candidates};
  f->groups[1] = (mk_group){.name = "out", .kind = "copy", .ncandidates = 1, .candidates = out_candidates};
  f->groups[2] = (mk_group){.name = "state", .kind = "copy", .ncandidates = 1, .candidates = state_candidates};
  f->groups[3] = (mk_group){.name = "set", .kind = "copy", .ncandidates = 1, .candidates = set_candidates};
  f->programs[0] = (mk_program){"load", MK_RATE_LOAD, 2, load_steps};
  f->programs[1] = (mk_program){"prompt", MK_RATE_PROMPT, 0, NULL};
  f->programs[2] = (mk_program){"step", MK_RATE_STEP, 3, step_steps};
  f->weights[0] = (mk_binding){"w", MK_F32, 1, {N}, BYTES, {MK_SPACE_SCRATCH, 0}};
  f->inputs[0] = (mk_binding){"x", MK_BF16, 1, {N}, N * 2, {MK_SPACE_IO, 0}};
  f->outputs[0] = (mk_binding){"y", MK_F32, 1, {N}, BYTES, {MK_SPACE_IO, 256}};
  f->outputs[1] = (mk_binding){"before", MK_BF16, 1, {N}, N * 2, {MK_SPACE_IO, 512}};
  f->states[0] = (mk_binding){"s", MK_BF16, 1, {N}, N * 2, {MK_SPACE_STATE, 0}};
  f->plan =
      (mk_plan){.name = "plan",
                .ngroups = 4,
                .groups = f->groups,
                .nprograms = 3,
                .programs = f->programs,
                .nweights = 1,
                .ninputs = 1,
                .noutputs = 2,
                .nstates = 1,
                .weights = f->weights,
                .inputs = f->inputs,
                .outputs = f->outputs,
                .states = f->states,
                .space_bytes = {[MK_SPACE_LOAD] = 512, [MK_SPACE_STATE] = 256, [MK_SPACE_IO] = 768, [MK_SPACE_SCRATCH] = 256}};
  f->s = mk_gpu_session_open(&f->d, &f->plan, NULL, &st);
  assert_non_null(f->s);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  if (f->s) f->s->ops->close(f->s);
  mk_gpu_block_free(&f->d, &f->d.scratch);
  mk_gpu_slots_free(&f->d);
  mk_arena_free(&f->d.arena);
  free(f);
  return 0;
}

static void load(fixture *f) {
  mk_status st = {0};
  mk_source source = {.fetch = fetch};
  assert_true(f->s->ops->load(f->s, &source, NULL, NULL, &st));
}

static void write_x(fixture *f, float first) {
  mk_status st = {0};
  float x[N] = {first, 2, 3, 4, 5, 6};
  mk_tensor t = {.name = "x", .dtype = MK_F32, .rank = 1, .dims = {N}, .data = x, .bytes = sizeof x};
  assert_true(f->s->ops->write(f->s, &t, &st));
}

static float first_of(fixture *f, const char *name) {
  mk_status st = {0};
  float v[N];
  assert_true(f->s->ops->read(f->s, name, v, sizeof v, &st));
  return v[0];
}

static void run(fixture *f) {
  mk_status st = {0};
  bool ok = f->s->ops->run(f->s, "step", &st);
  if (!ok) print_error("%s\n", st.message);
  assert_true(ok);
}

/* ---- tests */

static void test_takes_next_candidate(void **state) {
  fixture *f = *state;
  assert_int_equal(mk_gpu_session_choice(f->s, 0), 1); /* there is no matmul library here */
}

static void test_covered_groups_do_not_run(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  const mk_candidate both[] = {{.label = "copy", .nlaunches = 1, .launches = &state_set},
                               {.label = "with the group before", .nlaunches = 1, .launches = &state_set, .covers = 1}};
  f->groups[3].candidates = both;
  f->groups[3].ncandidates = 2;
  for (int c = 0; c < 2; c++) {
    f->s->ops->close(f->s);
    f->groups[3].chosen = c;
    f->s = mk_gpu_session_open(&f->d, &f->plan, NULL, &st);
    assert_non_null(f->s);
    assert_int_equal(mk_gpu_session_covers(f->s, 2), c);
    assert_false(mk_gpu_session_covers(f->s, 3));
    load(f);
    for (int i = 0; i < 3; i++) {
      write_x(f, (float)(i + 1));
      run(f);
      assert_float_equal(first_of(f, "s"), i + 1, 0);
      if (!c) assert_float_equal(first_of(f, "before"), i, 0);
      if (c && i) assert_float_not_equal(first_of(f, "before"), i, 0);
    }
  }
}

static void test_values_and_graph(void **state) {
  fixture *f = *state;
  load(f);
  for (int i = 0; i < 4; i++) {
    write_x(f, (float)(i + 1));
    run(f);
    assert_float_equal(first_of(f, "y"), 1, 0);
    assert_float_equal(first_of(f, "before"), i, 0); /* the state of the run before, zero at first */
    assert_float_equal(first_of(f, "s"), i + 1, 0);
  }
  assert_int_equal(fake.graph_launches, 3); /* all but the first run */
  mk_status st = {0};
  assert_true(f->s->ops->reset(f->s, &st));
  assert_float_equal(first_of(f, "s"), 0, 0);
  mk_tensor t;
  assert_true(f->s->ops->describe(f->s, "before", &t));
  assert_int_equal(t.dtype, MK_BF16);
  assert_false(f->s->ops->describe(f->s, "nothing", &t));
}

static void test_without_graph(void **state) {
  fixture *f = *state;
  fake.refuse_capture = true;
  load(f);
  for (int i = 0; i < 3; i++) {
    write_x(f, (float)(i + 1));
    run(f);
    assert_float_equal(first_of(f, "before"), i, 0);
  }
  assert_int_equal(fake.graph_launches, 0);
}

static void test_scratch_moves(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  load(f);
  for (int i = 0; i < 2; i++) run(f);
  const mk_gpu_session *s = (const mk_gpu_session *)f->s;
  assert_non_null(s->programs[2].graph);
  assert_true(mk_gpu_scratch_reserve(&f->d, 4096, &st)); /* as a larger session would */
  mk_source source = {.fetch = fetch};
  assert_true(f->s->ops->load(f->s, &source, NULL, NULL, &st));
  assert_null(s->programs[2].graph);
  run(f);
  assert_float_equal(first_of(f, "y"), 1, 0);
}

static void test_park(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  load(f);
  for (int i = 0; i < 2; i++) {
    assert_true(f->s->ops->park(f->s, &st));
    assert_true(f->s->ops->park(f->s, &st)); /* again: nothing to do */
    assert_false(f->s->ops->run(f->s, "step", &(mk_status){0}));
    assert_true(f->s->ops->unpark(f->s, &st));
    write_x(f, 7);
    run(f);
    assert_float_equal(first_of(f, "y"), 1, 0);
  }
}

static void test_memory_is_checked_first(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  f->plan.space_bytes[MK_SPACE_LOAD] = (int64_t)3 << 30;
  fake.allocations = 0;
  assert_null(mk_gpu_session_open(&f->d, &f->plan, NULL, &st));
  assert_int_equal(st.code, MK_EGPU);
  assert_non_null(strstr(st.message, "3.3 GiB needed (3.0 GiB weights"));
  assert_non_null(strstr(st.message, "1.0 GiB of 1024.0 GiB free"));
  assert_non_null(strstr(st.message, "--offload"));
  assert_int_equal(fake.allocations, 0);
  /* Two of these do not fit together, one at a time does. */
  f->plan.space_bytes[MK_SPACE_LOAD] = (int64_t)400 << 20;
  const mk_plan *plans[] = {&f->plan, &f->plan};
  assert_false(mk_gpu_plans_fit(&f->d, plans, 2, false, "two", &(mk_status){0}));
  assert_true(mk_gpu_plans_fit(&f->d, plans, 2, true, "two", &(mk_status){0}));
  f->plan.space_bytes[MK_SPACE_LOAD] = 512;
}

static bool stop_at_once(void *user, const char *what, int64_t done, int64_t total) {
  (void)user;
  assert_string_equal(what, "w");
  assert_int_equal(done, BYTES);
  assert_int_equal(total, BYTES);
  return false;
}

static void test_bad_use(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  assert_false(f->s->ops->run(f->s, "step", &st)); /* before load */
  int wrong = 5;
  mk_source source = {.self = &wrong, .fetch = fetch};
  st = (mk_status){0};
  assert_false(f->s->ops->load(f->s, &source, NULL, NULL, &st));
  assert_non_null(strstr(st.message, "file: tensor w has shape [5], the graph was made for [6]"));
  source.self = NULL;
  st = (mk_status){0};
  assert_false(f->s->ops->load(f->s, &source, stop_at_once, NULL, &st));
  assert_int_equal(st.code, MK_EINTERRUPTED);
  load(f);
  float x[4] = {0};
  mk_tensor t = {.name = "x", .dtype = MK_F32, .rank = 1, .dims = {4}, .data = x, .bytes = sizeof x};
  st = (mk_status){0};
  assert_false(f->s->ops->write(f->s, &t, &st));
  assert_non_null(strstr(st.message, "input x has shape [6], not [4]"));
  t.name = "z";
  assert_false(f->s->ops->write(f->s, &t, &(mk_status){0}));
  assert_false(f->s->ops->read(f->s, "z", x, sizeof x, &(mk_status){0}));
  assert_false(f->s->ops->read(f->s, "y", x, sizeof x, &(mk_status){0}));
  assert_false(f->s->ops->run(f->s, "load", &(mk_status){0}));
}

static void test_staging(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  int64_t count =
      (int64_t)MK_GPU_SLOT_BYTES / 2 * 3 + 17; /* three buffers and a bit, so every slot is used again on the way back */
  uint16_t *half = malloc((size_t)count * 2), *device = malloc((size_t)count * 2);
  float *back = malloc((size_t)count * 4);
  for (int64_t i = 0; i < count; i++) half[i] = mk_f32_to_bf16((float)(i % 251));
  CUdeviceptr p = (CUdeviceptr)(uintptr_t)device;
  assert_true(mk_gpu_upload(&f->d, NULL, p, MK_BF16, half, MK_BF16, count, NULL, NULL, &st));
  assert_memory_equal(half, device, (size_t)count * 2);
  assert_true(mk_gpu_download(&f->d, back, MK_F32, p, MK_BF16, count, &st));
  for (int64_t i = 0; i < count; i++)
    if (back[i] != (float)(i % 251)) fail_msg("element %lld is %g", (long long)i, (double)back[i]);
  free(half);
  free(device);
  free(back);
}

static void test_timing(void **state) {
  fixture *f = *state;
  mk_status st = {0};
  mk_gpu_times times;
  assert_false(mk_gpu_time_program(f->s, "step", 3, &times, &(mk_status){0})); /* before load */
  load(f);
  assert_false(mk_gpu_time_program(f->s, "nothing", 3, &times, &(mk_status){0}));
  fake.elapsed_ms = 2;
  fake.events_recorded = 0;
  assert_true(mk_gpu_time_program(f->s, "step", 3, &times, &st));
  assert_int_equal(times.nsteps, 3);
  for (int i = 0; i < 3; i++) assert_float_equal(times.step_ms[i], 2, 0);
  assert_float_equal(times.graph_ms, 2, 0);
  assert_int_equal(fake.graph_launches, 4); /* the second warm-up and three timed runs */
  assert_int_equal(fake.events_recorded, 3 * 4 + 3 * 2);
  mk_gpu_times_free(&times);
  fake.elapsed_ms = 2000;
  fake.events_recorded = 0;
  assert_true(mk_gpu_time_program(f->s, "step", 3, &times, &st));
  for (int i = 0; i < 3; i++) assert_float_equal(times.step_ms[i], 2000, 0);
  assert_int_equal(fake.events_recorded, 4 + 3 * 2); /* stepped through once */
  mk_gpu_times_free(&times);
}

static void test_synthetic_rules(void **state) {
  (void)state;
  const int64_t matrix[] = {64, 16, 2, 2}, gain[] = {96, 1, 1, 1};
  assert_float_equal(mk_gpu_synthetic_rule_of("patch.weight", matrix, 4).deviation, 0.125, 1e-7);
  assert_float_equal(mk_gpu_synthetic_rule_of("norm.gamma", gain, 4).mean, 1, 0);
  assert_float_equal(mk_gpu_synthetic_rule_of("norm_q.weight", gain, 1).mean, 1, 0);
  assert_float_equal(mk_gpu_synthetic_rule_of("o.bias", gain, 1).deviation, 0.02, 1e-7);
  assert_float_equal(mk_gpu_synthetic_rule_of("blocks.0.modulation", matrix, 3).deviation, 0.3, 1e-7);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_takes_next_candidate, setup, teardown),
      cmocka_unit_test_setup_teardown(test_covered_groups_do_not_run, setup, teardown),
      cmocka_unit_test_setup_teardown(test_values_and_graph, setup, teardown),
      cmocka_unit_test_setup_teardown(test_without_graph, setup, teardown),
      cmocka_unit_test_setup_teardown(test_scratch_moves, setup, teardown),
      cmocka_unit_test_setup_teardown(test_park, setup, teardown),
      cmocka_unit_test_setup_teardown(test_memory_is_checked_first, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bad_use, setup, teardown),
      cmocka_unit_test_setup_teardown(test_staging, setup, teardown),
      cmocka_unit_test_setup_teardown(test_timing, setup, teardown),
      cmocka_unit_test(test_synthetic_rules),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
