/* Video files: what is in them, what happens without an encoder, and that nothing half-written is ever left. */
#include "runtime/model/video.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/file.h"
#include "runtime/model/progress.h"
#include "runtime/model/tensor_file.h"
#include "runtime/model/video_sink.h"
#include "tests/unit/temp_folder.h"

enum { WIDTH = 64, HEIGHT = 48, FRAMES = 9, PIXELS = WIDTH * HEIGHT };
static float clip[FRAMES * PIXELS * 3]; /* [F, H, W, 3]: a picture that moves */

static int make_clip(void **state) {
  (void)state;
  for (int f = 0; f < FRAMES; f++)
    for (int y = 0; y < HEIGHT; y++)
      for (int x = 0; x < WIDTH; x++) {
        float *p = clip + 3 * (f * PIXELS + y * WIDTH + x);
        p[0] = sinf(0.1f * (float)(x + 3 * f));
        p[1] = cosf(0.13f * (float)y);
        p[2] = (float)(f - 4) / 4;
      }
  return 0;
}

static const mk_video_options options = {.width = WIDTH, .height = HEIGHT, .frames = FRAMES, .fps = 16};

/* Opens, gives the clip in uneven pieces, finishes. */
static bool write_clip(const char *path, const mk_video_options *o, mk_status *st) {
  mk_video *v = mk_video_open(path, o, st);
  if (!v) return false;
  bool ok = true;
  for (int at = 0, n = 1; at < FRAMES && ok; at += n, n = at + 4 > FRAMES ? FRAMES - at : 4)
    ok = mk_video_frames(v, clip + at * PIXELS * 3, n, st);
  return mk_video_finish(v, st) && ok;
}

static void safetensors(void **state) {
  (void)state;
  static const float latent[6] = {1, 2, 3, 4, 5, 6};
  mk_tensor latents = {.name = "x", .rank = 2, .dims = {2, 3}, .data = latent, .bytes = sizeof latent};
  mk_video_options o = options;
  o.latents = &latents;
  mk_status st = {0};
  if (!write_clip(in("a.safetensors"), &o, &st)) fail_msg("%s", st.message);
  mk_tensor_file *f = mk_tensor_file_open(in("a.safetensors"), &st);
  if (!f) fail_msg("%s", st.message);
  mk_tensor t;
  assert_true(mk_entry_fetch(f, mk_tensor_file_find(f, "frames"), &t, &st));
  assert_true(t.rank == 4 && t.dims[0] == FRAMES && t.dims[1] == HEIGHT && t.dims[2] == WIDTH && t.dims[3] == 3);
  assert_memory_equal(t.data, clip, sizeof clip);
  assert_true(mk_entry_fetch(f, mk_tensor_file_find(f, "latents"), &t, &st));
  assert_memory_equal(t.data, latent, sizeof latent);
  mk_tensor_file_close(f);
  assert_int_equal(files_in_folder(), 1);
}

static void y4m(void **state) {
  (void)state;
  mk_status st = {0};
  if (!write_clip(in("a.y4m"), &options, &st)) fail_msg("%s", st.message);
  size_t n;
  char *data = mk_file_read(in("a.y4m"), &n, &st);
  static const char start[] = "YUV4MPEG2 W64 H48 F16:1 Ip A1:1 C420mpeg2 ";
  assert_memory_equal(data, start, sizeof start - 1);
  size_t header = (size_t)(strchr(data, '\n') - data) + 1;
  assert_int_equal(n, header + FRAMES * (6 + PIXELS * 3 / 2));
  for (int f = 0; f < FRAMES; f++) assert_memory_equal(data + header + (size_t)f * (6 + PIXELS * 3 / 2), "FRAME\n", 6);
  free(data);
  /* The same clip given as [3, n, height, width] is the same file. */
  float *planar = malloc(sizeof clip);
  for (int f = 0; f < FRAMES; f++)
    for (int p = 0; p < PIXELS; p++)
      for (int c = 0; c < 3; c++) planar[(c * FRAMES + f) * PIXELS + p] = clip[(f * PIXELS + p) * 3 + c];
  mk_video_options o = options;
  o.planar = true;
  mk_video *v = mk_video_open(in("b.y4m"), &o, &st);
  assert_true(mk_video_frames(v, planar, FRAMES, &st) && mk_video_finish(v, &st));
  free(planar);
  size_t m;
  char *a = mk_file_read(in("a.y4m"), &n, &st), *b = mk_file_read(in("b.y4m"), &m, &st);
  assert_int_equal(n, m);
  assert_memory_equal(a, b, n);
  free(a), free(b);
}

/* Truncation as Wan's writer has it, and the standard's colour values. */
static void colours(void **state) {
  (void)state;
  static const struct {
    float rgb[3];
    uint8_t yuv[3];
  } cases[] = {{{-1, -1, -1}, {16, 128, 128}},  {{1, 1, 1}, {235, 128, 128}},  {{1, -1, -1}, {81, 90, 240}},
               {{-1, 1, -1}, {145, 54, 34}},    {{-1, -1, 1}, {41, 240, 110}}, {{7, 1e30f, 1.0001f}, {235, 128, 128}},
               {{NAN, -9, -1}, {16, 128, 128}}, {{0, 0, 0}, {125, 128, 128}}}; /* 0 is 127, not 128 */
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    float frame[4 * 2 * 3];
    for (int p = 0; p < 8; p++) memcpy(frame + 3 * p, cases[i].rgb, sizeof cases[i].rgb);
    mk_video_options o = {.width = 4, .height = 2, .frames = 1};
    mk_status st = {0};
    mk_video *v = mk_video_open(in("c.y4m"), &o, &st);
    assert_true(v && mk_video_frames(v, frame, 1, &st) && mk_video_finish(v, &st));
    size_t n;
    uint8_t *data = (uint8_t *)mk_file_read(in("c.y4m"), &n, &st), *picture = data + n - 12;
    for (int p = 0; p < 8; p++) assert_int_equal(picture[p], cases[i].yuv[0]);
    for (int p = 0; p < 2; p++) {
      assert_int_equal(picture[8 + p], cases[i].yuv[1]);
      assert_int_equal(picture[10 + p], cases[i].yuv[2]);
    }
    free(data);
  }
  uint8_t rgb[3 * 3 * 3], luma[9], blue[4], red[4]; /* odd sizes */
  memset(rgb, 255, sizeof rgb);
  mk_rgb_to_yuv420(rgb, 3, 3, MK_BT709, (uint8_t *const[3]){luma, blue, red}, (const int[3]){3, 2, 2});
  for (int p = 0; p < 9; p++) assert_int_equal(luma[p], 235);
  for (int p = 0; p < 4; p++) assert_true(blue[p] == 128 && red[p] == 128);
}

static void frame_rates(void **state) {
  (void)state;
  static const struct {
    double fps;
    const char *field;
  } cases[] = {{0, " F16:1 "}, {24, " F24:1 "}, {23.976, " F24000:1001 "}, {29.97, " F30000:1001 "}, {12.5, " F12500:1000 "}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    mk_video_options o = options;
    o.fps = cases[i].fps;
    mk_status st = {0};
    size_t n;
    assert_true(write_clip(in("a.y4m"), &o, &st));
    char *data = mk_file_read(in("a.y4m"), &n, &st);
    assert_non_null(strstr(data, cases[i].field));
    free(data);
  }
}

/* What ffmpeg makes of a file's pictures; the bytes read, 0 where it cannot. */
static size_t decode(const char *path, const char *format, uint8_t *out, size_t room) {
  char command[256];
  snprintf(command, sizeof command, "ffmpeg -v error -i %s -f rawvideo -pix_fmt %s - 2>/dev/null", path, format);
  FILE *p = popen(command, "r");
  size_t n = fread(out, 1, room, p);
  return pclose(p) ? 0 : n;
}

/* Mean square difference per byte between the mp4's decoded luma and the source's. Negative: no ffmpeg to decode with. */
static double decoded_error(const char *path) {
  static uint8_t decoded[FRAMES * PIXELS * 3 / 2 + 1];
  size_t n = decode(path, "yuv420p", decoded, sizeof decoded);
  if (!n) return -1;
  assert_int_equal(n, FRAMES * PIXELS * 3 / 2);
  double sum = 0;
  static uint8_t rgb[PIXELS * 3], planes[PIXELS * 3 / 2];
  for (int f = 0; f < FRAMES; f++) {
    for (int i = 0; i < PIXELS * 3; i++) rgb[i] = (uint8_t)((clip[f * PIXELS * 3 + i] + 1) * 0.5f * 255);
    mk_rgb_to_yuv420(rgb, WIDTH, HEIGHT, MK_BT709, (uint8_t *const[3]){planes, planes + PIXELS, planes + PIXELS * 5 / 4},
                     (const int[3]){WIDTH, WIDTH / 2, WIDTH / 2});
    for (int i = 0; i < PIXELS * 3 / 2; i++) sum += pow(planes[i] - decoded[f * PIXELS * 3 / 2 + i], 2);
  }
  return sum / (FRAMES * PIXELS * 1.5);
}

static bool have_libav(void) {
  char text[256];
  if (mk_video_mp4_available(NULL, text, sizeof text)) return true;
  print_message("# %s\n", text);
  return false;
}

static void mp4(void **state) {
  (void)state;
  if (!have_libav()) skip();
  mk_status st = {0};
  if (!write_clip(in("a.mp4"), &options, &st)) fail_msg("%s", st.message);
  assert_true(write_clip(in("b.mp4"), &options, &st));
  size_t n, m;
  char *a = mk_file_read(in("a.mp4"), &n, &st), *b = mk_file_read(in("b.mp4"), &m, &st);
  assert_memory_equal(a + 4, "ftyp", 4);
  assert_int_equal(n, m);
  assert_memory_equal(a, b, n);
  free(a), free(b);
  double error = decoded_error(in("a.mp4"));
  if (error >= 0 && !(error < 6)) fail_msg("decoded frames differ: mean square %g", error); /* above 40 dB */
  mk_video_options o = options;
  o.quality = 1;
  assert_true(write_clip(in("c.mp4"), &o, &st));
  free(mk_file_read(in("c.mp4"), &m, &st));
  assert_true(m < n);
  assert_int_equal(files_in_folder(), 3);
  o = options;
  o.width = 63;
  assert_null(mk_video_open(in("odd.mp4"), &o, &st));
  assert_non_null(strstr(st.message, "even"));
  assert_int_equal(files_in_folder(), 3);
}

/* The tile in column x and row y of a sheet whose tiles are width × height is this frame of the clip, one pixel in shrink ×
 * shrink of it when all of these are alike. */
static void check_tile(const uint8_t *sheet, int sheet_width, int x, int y, int width, int height, const uint8_t *frame,
                       int shrink) {
  const uint8_t *tile = sheet + 3 * ((2 + y * (height + 2)) * sheet_width + 2 + x * (width + 2));
  for (int i = 0; i < height; i++)
    for (int j = 0; j < width * 3; j++)
      assert_int_equal(tile[3 * i * sheet_width + j], frame[3 * (i * shrink * width * shrink + j / 3 * shrink) + j % 3]);
}

/* 17 frames, of which every second is shown; 3, in two rows; and one, which is a plain picture. */
static void sheets(void **state) {
  (void)state;
  if (!have_libav()) skip();
  enum { W = 16, H = 8, N = 17, SHEET_W = 3 * (W + 2) + 2, SHEET_H = 3 * (H + 2) + 2 };
  static const int counts[] = {17, 3, 1};
  static float frames[N * H * W * 3];
  static uint8_t bytes[N * H * W * 3], sheet[SHEET_W * SHEET_H * 3 + 1];
  for (int i = 0; i < N * H * W * 3; i++) {
    bytes[i] = (uint8_t)(i * 7919 >> 3);
    frames[i] = ((float)bytes[i] + 0.5f) / 127.5f - 1;
  }
  mk_status st = {0};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    int n = counts[i];
    mk_video_options o = {.width = W, .height = H, .frames = n};
    mk_video *v = mk_video_open(in("a.png"), &o, &st);
    if (!v || !mk_video_frames(v, frames, n, &st) || !mk_video_finish(v, &st)) fail_msg("%s", st.message);
    assert_int_equal(files_in_folder(), 1);
    size_t got = decode(in("a.png"), "rgb24", sheet, sizeof sheet);
    if (!got) skip(); /* no ffmpeg */
    if (n == 1) {
      assert_int_equal(got, W * H * 3);
      assert_memory_equal(sheet, bytes, W * H * 3);
      continue;
    }
    int tiles = n == 17 ? 9 : 3, columns = n == 17 ? 3 : 2, rows = n == 17 ? 3 : 2, width = columns * (W + 2) + 2;
    assert_int_equal(got, width * (rows * (H + 2) + 2) * 3);
    for (int t = 0; t < tiles; t++)
      check_tile(sheet, width, t % columns, t / columns, W, H, bytes + t * (n - 1) / (tiles - 1) * W * H * 3, 1);
    for (int c = 0; c < 6; c++) assert_int_equal(sheet[c], sheet[3 * width + c]); /* the border has one colour */
  }
}

/* Large frames are made smaller by whole numbers. */
static void small_sheet(void **state) {
  (void)state;
  if (!have_libav()) skip();
  enum { W = 1280, H = 32, SHRINK = 2, N = 2 };
  float *frames = malloc(sizeof *frames * N * W * H * 3);
  uint8_t *bytes = malloc(N * W * H * 3), *sheet = malloc(N * W * H * 3);
  for (int i = 0; i < N * W * H * 3; i++) {
    int x = i / 3 % W / SHRINK, y = i / 3 / W / SHRINK;
    bytes[i] = (uint8_t)(x * 3 + y * 5 + i % 3 * 50);
    frames[i] = ((float)bytes[i] + 0.5f) / 127.5f - 1;
  }
  mk_video_options o = {.width = W, .height = H, .frames = N};
  mk_status st = {0};
  mk_video *v = mk_video_open(in("a.png"), &o, &st);
  if (!v || !mk_video_frames(v, frames, N, &st) || !mk_video_finish(v, &st)) fail_msg("%s", st.message);
  size_t got = decode(in("a.png"), "rgb24", sheet, N * W * H * 3);
  int width = 2 * (W / SHRINK + 2) + 2;
  if (got) {
    assert_int_equal(got, width * (H / SHRINK + 4) * 3);
    for (int t = 0; t < 2; t++) check_tile(sheet, width, t, 0, W / SHRINK, H / SHRINK, bytes + t * W * H * 3, SHRINK);
  }
  free(frames), free(bytes), free(sheet);
}

static void without_libav(void **state) {
  (void)state;
  char text[512];
  assert_false(mk_video_mp4_available("/nowhere", text, sizeof text));
  assert_non_null(strstr(text, "libav"));
  mk_video_options o = options;
  o.libav_folder = "/nowhere";
  mk_status st = {0};
  mk_video *v = mk_video_open(in("a.mp4"), &o, &st);
  if (!v) fail_msg("%s", st.message);
  assert_string_equal(mk_video_path(v), in("a.y4m"));
  assert_true(mk_video_frames(v, clip, FRAMES, &st) && mk_video_finish(v, &st));
  assert_true(mk_file_exists(in("a.y4m")));
  assert_null(mk_video_open(in("a.png"), &o, &st));
  assert_int_equal(st.code, MK_EUNSUPPORTED);
  assert_true(strstr(st.message, in("a.png")) && strstr(st.message, "libav") && strstr(st.message, "install"));
  assert_int_equal(files_in_folder(), 1);
}

static const char *const names[] = {"a.mp4", "a.y4m", "a.safetensors", "a.png"};

/* How many of the names can be written here. */
static size_t nnames(void) { return sizeof names / sizeof *names - !have_libav(); }

static void nothing_half_written(void **state) {
  (void)state;
  for (size_t i = 0; i < nnames(); i++) {
    mk_status st = {0};
    mk_video *v = mk_video_open(in(names[i]), &options, &st); /* stopped half way */
    assert_true(v && mk_video_frames(v, clip, 4, &st));
    assert_false(mk_file_exists(in(names[i])));
    mk_video_discard(v);
    assert_int_equal(files_in_folder(), 0);
    v = mk_video_open(in(names[i]), &options, &st); /* finished too early */
    assert_true(mk_video_frames(v, clip, 4, &st));
    assert_false(mk_video_finish(v, &st));
    assert_int_equal(files_in_folder(), 0);
    st = (mk_status){0};
    v = mk_video_open(in(names[i]), &options, &st); /* one too many */
    assert_true(mk_video_frames(v, clip, FRAMES, &st));
    assert_false(mk_video_frames(v, clip, 1, &st));
    assert_false(mk_video_finish(v, &st));
    assert_int_equal(files_in_folder(), 0);
  }
  mk_video_discard(NULL);
}

/* A limit on file size fails writes as a full disk does. */
static void full_disk(void **state) {
  (void)state;
  struct rlimit old, limit;
  getrlimit(RLIMIT_FSIZE, &old);
  limit = old;
  limit.rlim_cur = 512;
  for (size_t i = 0; i < nnames(); i++) {
    mk_status st = {0};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    bool ok = write_clip(in(names[i]), &options, &st);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(ok);
    assert_int_equal(st.code, MK_EIO);
    assert_non_null(strstr(st.message, in(names[i])));
    assert_int_equal(files_in_folder(), 0);
  }
}

static void refused(const char *path, const mk_video_options *o, const char *word) {
  mk_status st = {0};
  assert_null(mk_video_open(path, o, &st));
  if (!strstr(st.message, path) || !strstr(st.message, word)) fail_msg("no \"%s\" or \"%s\" in: %s", path, word, st.message);
}

static void bad_places(void **state) {
  (void)state;
  for (size_t i = 0; i < nnames(); i++) {
    char path[64];
    snprintf(path, sizeof path, "/nowhere/%s", names[i]);
    refused(path, &options, "folder");
    snprintf(path, sizeof path, "/proc/%s", names[i]);
    refused(path, &options, "cannot write");
  }
  refused(in("a.avi"), &options, ".mp4");
  refused(in("a"), &options, ".y4m");
  mk_video_options o = options;
  o.fps = -1;
  refused(in("a.mp4"), &o, "frames a second");
  o = options, o.quality = 11;
  refused(in("a.mp4"), &o, "quality");
  o = options, o.width = 0;
  refused(in("a.mp4"), &o, "size");
  o = options, o.frames = 0;
  refused(in("a.mp4"), &o, "frames");
  assert_int_equal(files_in_folder(), 0);
}

static void progress_lines(void **state) {
  (void)state;
  char line[512];
  assert_string_equal(mk_progress_line(line, sizeof line, 0, "denoising", 26, 40, 62),
                      "denoising  65% 26/40 [01:02<00:33, 2.38 s/it]");
  assert_string_equal(mk_progress_line(line, sizeof line, 60, "denoising", 20, 40, 4000),
                      "denoising  50%|███▌   | 20/40 [1:06:40<1:06:40, 200.00 s/it]");
  assert_string_equal(mk_progress_line(line, sizeof line, 0, "loading", 0, 0, 0), "loading   0% 0/0 [00:00<?, ? s/it]");
  assert_string_equal(mk_progress_line(line, sizeof line, 0, "loading", 300 << 20, 1200 << 20, 2),
                      "loading  25% 300/1200 MiB [00:02<00:06, 150 MiB/s]");
  assert_string_equal(mk_progress_line(line, sizeof line, 0, "loading", 10, 10, 0.5),
                      "loading 100% 10/10 [00:01<00:00, 20.00 it/s]");
  mk_progress p = {.out = tmpfile()};
  for (int i = 1; i <= 100; i++) mk_progress_show(&p, "loading", i, 100, 0.01 * i); /* at most two a second, and the last */
  for (int i = 1; i <= 3; i++) mk_progress_show(&p, "denoising", i, 3, 5.0 * i);
  mk_progress_end(&p);
  rewind(p.out);
  int lines = 0, steps = 0;
  while (fgets(line, sizeof line, p.out)) lines++, steps += !strncmp(line, "denoising", 9);
  fclose(p.out);
  assert_int_equal(steps, 3);
  assert_true(lines - steps <= 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(safetensors, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(y4m, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(colours, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(frame_rates, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(mp4, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(sheets, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(small_sheet, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(without_libav, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(nothing_half_written, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(full_disk, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(bad_places, make_folder, drop_folder),
      cmocka_unit_test(progress_lines),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, make_clip, NULL);
}
