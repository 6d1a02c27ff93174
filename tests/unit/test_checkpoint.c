/* Component folders, model folders and PyTorch archives: what is there, and what is said when something is wrong. */
#include "runtime/model/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/file.h"
#include "runtime/model/safetensors.h"
#include "tests/unit/temp_folder.h"

#define VECTORS "tests/vectors/"

static void put_text(const char *name, const char *text) {
  mk_status st = {0};
  char parent[256];
  strcpy(parent, in(name));
  *strrchr(parent, '/') = 0;
  assert_true(mk_dir_make(parent, 0777, &st));
  if (!mk_file_publish(in(name), text, strlen(text), &st)) fail_msg("%s", st.message);
}

/* A file with one-element f32 tensors of these names. */
static void put_tensors(const char *name, const char *const *names) {
  static const float one = 1;
  mk_status st = {0};
  mk_tensor tensors[8];
  int n = 0;
  for (; names[n]; n++) tensors[n] = (mk_tensor){.name = names[n], .rank = 1, .dims = {1}, .data = &one, .bytes = 4};
  put_text(name, "");
  if (!mk_safetensors_save(in(name), tensors, n, NULL, 0, &st)) fail_msg("%s", st.message);
}
#define TENSORS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void check_words(const mk_status *st, const char *const *words) {
  assert_int_not_equal(st->code, MK_OK);
  for (int i = 0; words[i]; i++)
    if (!strstr(st->message, words[i])) fail_msg("no \"%s\" in: %s", words[i], st->message);
}

#define REFUSED(path, ...)                                       \
  do {                                                           \
    mk_status st_ = {0};                                         \
    assert_null(mk_checkpoint_open(path, &st_));                 \
    check_words(&st_, (const char *const[]){__VA_ARGS__, NULL}); \
  } while (0)

#define MODEL_REFUSED(path, ...)                                 \
  do {                                                           \
    mk_status st_ = {0};                                         \
    assert_null(mk_model_open(path, &st_));                      \
    check_words(&st_, (const char *const[]){__VA_ARGS__, NULL}); \
  } while (0)

static void single_and_sharded(void **state) {
  (void)state;
  static const struct {
    const char *path;
    const char *tensor;
    mk_dtype dtype;
    bool config;
  } cases[] = {{VECTORS "dit_diffusers", "blocks.0.attn1.to_q.weight", MK_F32, true},
               {VECTORS "dit_diffusers/", "blocks.1.attn1.to_q.weight", MK_BF16, true},
               {VECTORS "dit_original", "blocks.1.self_attn.q.weight", MK_BF16, true},
               {VECTORS "vae_original", "conv2.weight", MK_F16, false},
               {VECTORS "vae_original/Wan2.1_VAE.safetensors", "conv2.weight", MK_F16, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mk_status st = {0};
    mk_checkpoint *c = mk_checkpoint_open(cases[i].path, &st);
    if (!c) fail_msg("%s", st.message);
    const mk_source *s = mk_checkpoint_source(c);
    mk_tensor t, u;
    assert_true(s->describe(s->self, cases[i].tensor, &t));
    assert_int_equal(t.dtype, cases[i].dtype);
    assert_null(t.data);
    assert_true(s->fetch(s->self, cases[i].tensor, &u, &st));
    assert_non_null(u.data);
    assert_int_equal(u.bytes, mk_dims_count(u.dims, u.rank) * (int64_t)mk_dtype_size(u.dtype));
    assert_memory_equal(t.dims, u.dims, sizeof t.dims);
    assert_int_equal(mk_checkpoint_config(c) != NULL, cases[i].config);
    assert_int_equal(mk_checkpoint_config_json(c) != NULL, cases[i].config);
    uint64_t bytes = 0;
    for (int k = 0; k < mk_checkpoint_count(c); k++) {
      assert_true(s->describe(s->self, mk_checkpoint_name(c, k), &t));
      bytes += t.bytes;
    }
    assert_int_equal(bytes, mk_checkpoint_bytes(c));
    assert_false(s->describe(s->self, "no.such", &t));
    assert_false(s->fetch(s->self, "no.such", &t, &st));
    check_words(&st, (const char *const[]){"no.such", c ? mk_checkpoint_path(c) : "", NULL});
    mk_checkpoint_close(c);
  }
}

static void bad_folders(void **state) {
  (void)state;
  REFUSED("/no/such/folder", "/no/such/folder");
  REFUSED(folder, folder, ".safetensors");
  put_tensors("a.safetensors", TENSORS("x"));
  put_tensors("b.safetensors", TENSORS("y"));
  REFUSED(folder, folder, "2 files", "index");
  put_text("config.json", "{\"dim\": }");
  REFUSED(folder, in("config.json"), "JSON", "line 1");
  put_text("config.json", "[]");
  REFUSED(folder, in("config.json"), "object");
}

static void bad_indices(void **state) {
  (void)state;
  const char *index = "model.safetensors.index.json";
  put_tensors("one.safetensors", TENSORS("x", "extra"));
  static const struct {
    const char *text;
    const char *words[3];
  } cases[] = {
      {"{\"weight_map\":{\"x\":\"one.safetensors\"", {"JSON"}},
      {"{\"weight_map\":{\"x\":\"one.safetensors\",\"x\":\"one.safetensors\"}}", {"duplicate"}},
      {"{\"metadata\":{}}", {"\"weight_map\""}},
      {"{\"weight_map\":[]}", {"\"weight_map\""}},
      {"{\"weight_map\":{}}", {"\"weight_map\""}},
      {"{\"weight_map\":{\"x\":1}}", {"\"weight_map\"", "\"x\""}},
      {"{\"weight_map\":{\"x\":\"two.safetensors\"}}", {"\"weight_map\"", "\"x\"", "two.safetensors"}},
      {"{\"weight_map\":{\"x\":\"../one.safetensors\"}}", {"\"weight_map\"", "\"x\"", "same folder"}},
      {"{\"weight_map\":{\"x\":\"\"}}", {"\"weight_map\"", "\"x\""}},
      {"{\"weight_map\":{\"z\":\"one.safetensors\"}}", {"one.safetensors", "\"z\""}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put_text(index, cases[i].text);
    REFUSED(folder, in(index));
    mk_status st = {0};
    assert_null(mk_checkpoint_open(folder, &st));
    for (int k = 0; k < 3 && cases[i].words[k]; k++)
      if (!strstr(st.message, cases[i].words[k])) fail_msg("no \"%s\" in: %s", cases[i].words[k], st.message);
  }
  put_text(index, "{\"weight_map\":{\"x\":\"one.safetensors\"}}");
  mk_status st = {0};
  mk_checkpoint *c = mk_checkpoint_open(folder, &st);
  if (!c) fail_msg("%s", st.message);
  assert_int_equal(mk_checkpoint_count(c), 1);
  mk_checkpoint_close(c);
  put_text("one.safetensors", "damaged");
  REFUSED(folder, in("one.safetensors"));
}

static void put_diffusers(void) {
  put_text("model_index.json",
           "{\"_class_name\":\"WanPipeline\",\"boundary_ratio\":0.9,\"expand_timesteps\":false,"
           "\"transformer_2\":[\"diffusers\",\"WanTransformer3DModel\"]}");
  put_text("scheduler/scheduler_config.json", "{\"flow_shift\":3.0}");
  put_text("tokenizer/spiece.model", "");
  put_text("transformer/config.json", "{}");
  put_tensors("transformer/diffusion_pytorch_model.safetensors", TENSORS("high"));
  put_tensors("transformer_2/diffusion_pytorch_model.safetensors", TENSORS("low"));
  put_tensors("text_encoder/model.safetensors", TENSORS("text"));
  put_tensors("vae/diffusion_pytorch_model.safetensors", TENSORS("vae"));
}

static bool has(mk_checkpoint *c, const char *name) {
  const mk_source *s = mk_checkpoint_source(c);
  mk_tensor t;
  return s->describe(s->self, name, &t);
}

static void diffusers_model(void **state) {
  (void)state;
  put_diffusers();
  mk_status st = {0};
  mk_model *m = mk_model_open(folder, &st);
  if (!m) fail_msg("%s", st.message);
  assert_int_equal(m->layout, MK_LAYOUT_DIFFUSERS);
  assert_true(has(m->dit[0], "high") && has(m->dit[1], "low") && has(m->text_encoder, "text") && has(m->vae, "vae"));
  assert_true(m->boundary == 0.9 && m->scheduler_shift == 3.0);
  assert_true(m->defaults.shift == 12.0 && m->defaults.guidance[0] == 4.0 && m->defaults.guidance[1] == 3.0 &&
              m->defaults.fps == 16);
  assert_string_equal(m->tokenizer, in("tokenizer/spiece.model"));
  mk_model_close(m);

  put_text("moonkiln.json", "{\"width\":128,\"height\":96,\"frames\":17,\"fps\":8,\"grid\":\"diffusers\",\"negative\":\"\"}");
  m = mk_model_open(folder, &st);
  if (!m) fail_msg("%s", st.message);
  const mk_model_defaults *d = &m->defaults;
  assert_true(d->width == 128 && d->height == 96 && d->frames == 17 && d->fps == 8 && d->steps == 40);
  assert_string_equal(d->grid, "diffusers");
  assert_string_equal(d->negative, "");
  mk_model_close(m);
  put_text("moonkiln.json", "{\"width\":128,\"hight\":96}");
  MODEL_REFUSED(folder, "moonkiln.json", "hight", "height");
  put_text("moonkiln.json", "{\"frames\":\"17\"}");
  MODEL_REFUSED(folder, "moonkiln.json", "frames", "integer");
  unlink(in("moonkiln.json"));

  put_text("model_index.json", "{\"_class_name\":\"WanPipeline\",\"boundary_ratio\":null,\"transformer_2\":[null,null]}");
  m = mk_model_open(folder, &st);
  if (!m) fail_msg("%s", st.message);
  assert_null(m->dit[1]);
  assert_true(m->boundary == 0);
  mk_model_close(m);
}

static void original_model(void **state) {
  (void)state;
  put_text("high_noise_model/config.json", "{\"model_type\":\"t2v\"}");
  put_tensors("high_noise_model/diffusion_pytorch_model.safetensors", TENSORS("high"));
  MODEL_REFUSED(folder, folder, "low_noise_model/", "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth",
                "google/umt5-xxl/spiece.model");
  put_tensors("low_noise_model/diffusion_pytorch_model.safetensors", TENSORS("low"));
  put_text("google/umt5-xxl/spiece.model", "");
  put_tensors("models_t5_umt5-xxl-enc-bf16.safetensors", TENSORS("text"));
  mk_status st = {0};
  size_t bytes;
  char *archive = mk_file_read(VECTORS "torch/state_dict.pth", &bytes, &st);
  assert_true(archive && mk_file_publish(in("Wan2.1_VAE.pth"), archive, bytes, &st));
  free(archive);
  char slashed[40];
  snprintf(slashed, sizeof slashed, "%s/", folder);
  mk_model *m = mk_model_open(slashed, &st);
  if (!m) fail_msg("%s", st.message);
  assert_int_equal(m->layout, MK_LAYOUT_ORIGINAL);
  assert_true(has(m->dit[0], "high") && has(m->dit[1], "low") && has(m->text_encoder, "text") && has(m->vae, "view"));
  assert_true(m->boundary == 0.875 && m->scheduler_shift == 0);
  mk_model_close(m);

  put_text("high_noise_model/config.json", "{\"model_type\":\"i2v\"}");
  MODEL_REFUSED(folder, "config.json", "model_type", "i2v");
  unlink(in("high_noise_model/config.json"));
  MODEL_REFUSED(folder, "high_noise_model", "config.json");
}

static void bad_models(void **state) {
  (void)state;
  MODEL_REFUSED("/no/such/model", "/no/such/model");
  MODEL_REFUSED(folder, folder, "model_index.json", "high_noise_model");
  put_diffusers();
  assert_int_equal(rename(in("vae"), in("vae_away")), 0);
  assert_int_equal(rename(in("transformer_2"), in("away")), 0);
  MODEL_REFUSED(folder, folder, "missing", "vae/", "transformer_2/");
  assert_int_equal(rename(in("vae_away"), in("vae")), 0);
  assert_int_equal(rename(in("away"), in("transformer_2")), 0);
  put_text("scheduler/scheduler_config.json", "{\"flow_shift\":\"3\"}");
  MODEL_REFUSED(folder, "scheduler_config.json", "flow_shift");
  put_text("scheduler/scheduler_config.json", "{}");
  static const char *const cases[][3] = {
      {"{\"_class_name\":\"FluxPipeline\"}", "_class_name", "FluxPipeline"},
      {"{\"_class_name\":\"WanPipeline\",\"expand_timesteps\":true}", "expand_timesteps", "model_index.json"},
      {"{\"_class_name\":\"WanPipeline\",\"boundary_ratio\":2}", "boundary_ratio", "model_index.json"},
      {"{\"_class_name\":\"WanPipeline\",\"boundary_ratio\":\"x\"}", "boundary_ratio", "number"},
      {"{", "model_index.json", "JSON"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put_text("model_index.json", cases[i][0]);
    MODEL_REFUSED(folder, cases[i][1], cases[i][2]);
  }
}

static void torch_archive(void **state) {
  (void)state;
  mk_status st = {0};
  mk_checkpoint *c = mk_checkpoint_open(VECTORS "torch/state_dict.pth", &st);
  if (!c) fail_msg("%s", st.message);
  const mk_source *s = mk_checkpoint_source(c);
  assert_int_equal(mk_checkpoint_count(c), 4);
  mk_tensor t;
  assert_true(s->fetch(s->self, "weight", &t, &st));
  assert_true(t.dtype == MK_F32 && t.rank == 2 && t.dims[0] == 3 && t.dims[1] == 4);
  for (int i = 0; i < 12; i++) assert_true(((const float *)t.data)[i] == (float)i / 8);
  assert_true(s->fetch(s->self, "half", &t, &st));
  assert_true(t.dtype == MK_BF16 && mk_bf16_to_f32(((const uint16_t *)t.data)[1]) == -2.5f);
  assert_true(s->fetch(s->self, "ids", &t, &st));
  assert_true(t.dtype == MK_I32 && ((const int32_t *)t.data)[4] == 4);
  assert_true(s->fetch(s->self, "view", &t, &st));
  assert_true(t.dims[0] == 3 && ((const float *)t.data)[0] == 2 && ((const float *)t.data)[2] == 4);
  mk_checkpoint_close(c);

  c = mk_checkpoint_open(VECTORS "torch/strided.pth", &st);
  if (!c) fail_msg("%s", st.message);
  s = mk_checkpoint_source(c);
  assert_false(s->fetch(s->self, "t", &t, &st));
  check_words(&st, (const char *const[]){"strided.pth", "\"t\"", "contiguous", NULL});
  mk_checkpoint_close(c);
}

/* Every byte changed, every length cut: either refused or read within bounds (the sanitizer builds watch the bounds). */
static void damaged_archive(void **state) {
  (void)state;
  mk_status st = {0};
  size_t bytes;
  uint8_t *archive = (uint8_t *)mk_file_read(VECTORS "torch/state_dict.pth", &bytes, &st);
  assert_non_null(archive);
  const char *path = in("a.pth");
  int refused = 0;
  for (size_t i = 0; i < 2 * bytes; i++) {
    FILE *f = fopen(path, "wb");
    if (i < bytes) {
      uint8_t was = archive[i];
      archive[i] = (uint8_t)(was ^ (i % 3 ? 0xff : 1));
      fwrite(archive, 1, bytes, f);
      archive[i] = was;
    } else {
      fwrite(archive, 1, i - bytes, f);
    }
    fclose(f);
    st = (mk_status){0};
    mk_checkpoint *c = mk_checkpoint_open(path, &st);
    if (!c) {
      refused++;
      check_words(&st, (const char *const[]){path, NULL});
      continue;
    }
    if (i >= bytes) fail_msg("opened %zu of %zu bytes", i - bytes, bytes);
    const mk_source *s = mk_checkpoint_source(c);
    for (int k = 0; k < mk_checkpoint_count(c); k++) {
      mk_tensor t;
      uint8_t sum = 0;
      mk_status ignored = {0};
      if (s->fetch(s->self, mk_checkpoint_name(c, k), &t, &ignored))
        for (size_t b = 0; b < t.bytes; b++) sum = (uint8_t)(sum + ((const uint8_t *)t.data)[b]);
      (void)sum;
    }
    mk_checkpoint_close(c);
  }
  assert_true(refused > (int)bytes);
  free(archive);
}

/* A pickle that asks for a function is refused by name. */
static void pickle_runs_nothing(void **state) {
  (void)state;
  static const char evil[] =
      "\x80\x02"
      "cposix\nsystem\nX\x04\x00\x00\x00true\x85R.";
  uint8_t zip[512], *p = zip;
  size_t n = sizeof evil - 1, name = strlen("a/data.pkl");
  memcpy(p, "PK\3\4", 4), memset(p + 4, 0, 26), p[26] = (uint8_t)name;
  memcpy(p + 30, "a/data.pkl", name), memcpy(p + 30 + name, evil, n);
  size_t central = 30 + name + n, at = central;
  memcpy(p + at, "PK\1\2", 4), memset(p + at + 4, 0, 42);
  p[at + 20] = p[at + 24] = (uint8_t)n, p[at + 28] = (uint8_t)name;
  memcpy(p + at + 46, "a/data.pkl", name);
  at += 46 + name;
  memcpy(p + at, "PK\5\6", 4), memset(p + at + 4, 0, 18);
  p[at + 8] = p[at + 10] = 1, p[at + 12] = (uint8_t)(at - central), p[at + 16] = (uint8_t)central;
  mk_status st = {0};
  assert_true(mk_file_publish(in("evil.pth"), zip, at + 22, &st));
  REFUSED(in("evil.pth"), "evil.pth", "posix.system");
  zip[central + 10] = 8;
  assert_true(mk_file_publish(in("packed.pth"), zip, at + 22, &st));
  REFUSED(in("packed.pth"), "packed.pth", "compressed");
  put_text("old.pth", "\x80\x02\x8a\x0a old");
  REFUSED(in("old.pth"), "old.pth", "1.6");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(single_and_sharded),
      cmocka_unit_test_setup_teardown(bad_folders, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(bad_indices, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(diffusers_model, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(original_model, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(bad_models, make_folder, drop_folder),
      cmocka_unit_test(torch_archive),
      cmocka_unit_test_setup_teardown(damaged_archive, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(pickle_runs_nothing, make_folder, drop_folder),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
