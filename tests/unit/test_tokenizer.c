/* Cleaning and tokenizing of prompts, against what ftfy and transformers give (tests/vectors/tokenizer). */
#include "runtime/model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "runtime/base/arena.h"
#include "runtime/model/text_clean.h"

#define FOLDER "tests/vectors/tokenizer/"

static const char *clean(mk_arena *arena, const char *text) {
  mk_status st = {0};
  const char *result = mk_text_clean(arena, text, strlen(text), "text", &st);
  if (!result) fail_msg("%s", st.message);
  return result;
}

static void vectors(void **state) {
  (void)state;
  mk_status st = {0};
  json_error_t error;
  json_t *file = json_load_file(FOLDER "prompts.json", JSON_ALLOW_NUL, &error), *entry;
  if (!file) fail_msg("%s", error.text);
  mk_tokenizer *t = mk_tokenizer_open(FOLDER "spiece.model", &st);
  if (!t) fail_msg("%s", st.message);
  assert_int_equal(mk_tokenizer_vocab(t),
                   json_integer_value(json_object_get(file, "pieces")) + json_integer_value(json_object_get(file, "extra_ids")));
  mk_arena arena = {0};
  int checked = 0;
  size_t i;
  json_array_foreach(json_object_get(file, "prompts"), i, entry) {
    const json_t *prompt = json_object_get(entry, "prompt");
    const char *wanted = json_string_value(json_object_get(entry, "cleaned"));
    const char *class = json_string_value(json_object_get(entry, "class"));
    const char *cleaned = mk_text_clean(&arena, json_string_value(prompt), json_string_length(prompt), "prompt", &st);
    if (!cleaned) fail_msg("prompt %zu: %s", i, st.message);
    /* Repairing mojibake is ftfy's one step that is left out. */
    bool repaired = !strcmp(class, "mojibake") && strcmp(cleaned, wanted);
    if (!repaired && strcmp(cleaned, wanted)) fail_msg("prompt %zu (%s):\n got '%s'\nwant '%s'", i, class, cleaned, wanted);
    int32_t ids[MK_TEXT_LENGTH];
    bool cut;
    int n = mk_tokenizer_encode(t, wanted, ids, MK_TEXT_LENGTH, &cut, &st);
    const json_t *expected = json_object_get(entry, "ids");
    if (n != (int)json_array_size(expected))
      fail_msg("prompt %zu (%s): %d ids, %zu wanted", i, class, n, json_array_size(expected));
    for (int k = 0; k < n; k++)
      if (ids[k] != json_integer_value(json_array_get(expected, (size_t)k)))
        fail_msg("prompt %zu (%s), id %d: %d", i, class, k, (int)ids[k]);
    for (int k = n; k < MK_TEXT_LENGTH; k++) assert_int_equal(ids[k], 0);
    if (strcmp(class, "long")) assert_false(cut);
    checked++;
  }
  assert_true(checked >= 30);
  json_decref(file);
  mk_tokenizer_close(t);
  mk_arena_free(&arena);
}

static void truncation(void **state) {
  (void)state;
  mk_status st = {0};
  mk_tokenizer *t = mk_tokenizer_open(FOLDER "spiece.model", &st);
  int32_t ids[4];
  bool cut;
  assert_int_equal(mk_tokenizer_encode(t, "a a a", ids, 4, &cut, &st), 4);
  assert_false(cut);
  assert_int_equal(mk_tokenizer_encode(t, "a a a a", ids, 4, &cut, &st), 4);
  assert_true(cut);
  assert_int_equal(ids[3], 1);
  assert_int_equal(mk_tokenizer_encode(t, "a", ids, 1, &cut, &st), 1);
  assert_int_equal(ids[0], 1);
  assert_int_equal(mk_tokenizer_encode(t, "a", ids, 0, NULL, &st), -1);
  assert_int_equal(st.code, MK_EINPUT);
  mk_tokenizer_close(t);
}

static void html(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"P&EACUTE;REZ &SZLIG; &fflig; &FFLIG;", "PÉREZ SS ff FF"},
      {"&amp;amp;lt; &amp;amp;amp;amp;", "< &"}, /* ftfy until nothing changes, then html.unescape */
      {"<p>&ldquo;x&rdquo;</p> &amp;amp; &amp;amp;amp;", "<p>“x”</p> & &amp;"}, /* a '<' switches ftfy's part off */
      {"&lt;&ldquo;x&rdquo;", "<\"x\""},
      {"&#59; &#x3b &#65&#66; &#x1F408; &#xfdd0;x&#1;y", "; ; AB 🐈 xy"},
      {"&#0; &#x110000; &#99999999999999999999; &#xd800; &#x80; &#x81;|",
       "\xef\xbf\xbd \xef\xbf\xbd \xef\xbf\xbd \xef\xbf\xbd € \xc2\x81|"},
      {"&notit; &notin; &not &nonsense; & &; &#; &#x; R&D", "¬it; ∉ ¬ &nonsense; & &; &#; &#x; R&D"},
      {"&NotEqualTilde; &bne; &CounterClockwiseContourIntegral;", "≂̸ =⃥ ∳"},
      {"&hearts;&HEARTS;&Hearts;", "♥♥&Hearts;"},
  };
  mk_arena arena = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_string_equal(clean(&arena, cases[i][0]), cases[i][1]);
  mk_arena_free(&arena);
}

static void default_negative_is_clean(void **state) {
  (void)state;
  mk_arena arena = {0};
  assert_string_equal(clean(&arena, mk_default_negative_prompt), mk_default_negative_prompt);
  json_t *file = json_load_file(FOLDER "prompts.json", JSON_ALLOW_NUL, NULL), *entry;
  size_t i;
  bool found = false;
  json_array_foreach(json_object_get(file, "prompts"), i, entry) found =
      found || !strcmp(json_string_value(json_object_get(entry, "cleaned")), mk_default_negative_prompt);
  assert_true(found);
  json_decref(file);
  mk_arena_free(&arena);
}

static void invalid_utf8(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int offset;
  } cases[] = {{"abc\xff", 3},         {"\xc3", 0},     {"a\xc3(", 1},          {"\xe4\xbd", 0},
               {"ok \xed\xa0\x80", 3}, {"\xc0\x80", 0}, {"\xf4\x90\x80\x80", 0}};
  mk_arena arena = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mk_status st = {0};
    char offset[32];
    snprintf(offset, sizeof offset, "offset %d", cases[i].offset);
    assert_null(mk_text_clean(&arena, cases[i].text, strlen(cases[i].text), "--prompt", &st));
    assert_int_equal(st.code, MK_EINPUT);
    assert_non_null(strstr(st.message, "--prompt"));
    assert_non_null(strstr(st.message, offset));
  }
  mk_arena_free(&arena);
}

static void bad_models(void **state) {
  (void)state;
  char path[] = "/tmp/mk_spm_XXXXXX";
  int fd = mkstemp(path);
  assert_int_equal(write(fd, "not a model", 11), 11);
  close(fd);
  mk_status st = {0};
  assert_null(mk_tokenizer_open(path, &st));
  assert_int_equal(st.code, MK_EINPUT);
  assert_non_null(strstr(st.message, path));
  unlink(path);
  st = (mk_status){0};
  assert_null(mk_tokenizer_open(path, &st));
  assert_non_null(strstr(st.message, path));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(vectors),      cmocka_unit_test(truncation),
      cmocka_unit_test(html),         cmocka_unit_test(default_negative_is_clean),
      cmocka_unit_test(invalid_utf8), cmocka_unit_test(bad_models),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
