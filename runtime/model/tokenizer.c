/* Why not the library's own encoder: Hugging Face splits at white space first, sums scores in double, gives one unknown id to
 * a run of unknown characters and does not fall back to bytes. The networks were trained on its ids. */
#include "runtime/model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/base/file.h"
#include "runtime/model/json_util.h"
#include "runtime/model/sentencepiece_shim.h"

static const char SPACE_MARK[] = "\xe2\x96\x81"; /* U+2581 stands for a space in pieces */
enum { MARK_BYTES = 3, MAX_EXTRA_IDS = 100000 };

typedef struct piece {
  const char *text;
  size_t bytes;
  double score;
} piece;

struct mk_tokenizer {
  mk_arena arena;
  piece *pieces;
  int count;     /* of pieces */
  int extra_ids; /* <extra_id_N> has id count + extra_ids - 1 - N */
  int pad, eos, unk;
  double unk_score;
  int32_t *table; /* open addressing over the pieces' text: id or -1 */
  uint64_t mask;
  size_t longest;
  int *special; /* ids whose text in a prompt stands for themselves */
  int nspecial, special_cap;
};

static uint64_t hash_step(uint64_t h, char c) { return (h ^ (unsigned char)c) * 0x100000001b3u; }
static const uint64_t HASH_START = 0xcbf29ce484222325u;

static void build_table(mk_tokenizer *t) {
  uint64_t size = 16;
  while (size < 2u * (uint64_t)t->count) size *= 2;
  t->mask = size - 1;
  t->table = MK_NEW_ARRAY(&t->arena, int32_t, size);
  memset(t->table, 0xff, size * sizeof *t->table);
  for (int id = 0; id < t->count; id++) {
    uint64_t h = HASH_START;
    for (size_t i = 0; i < t->pieces[id].bytes; i++) h = hash_step(h, t->pieces[id].text[i]);
    uint64_t at = (h ^ h >> 32) & t->mask;
    while (t->table[at] >= 0) at = (at + 1) & t->mask;
    t->table[at] = id;
  }
}

static int look_up(const mk_tokenizer *t, const char *text, size_t bytes, uint64_t hash) {
  for (uint64_t at = (hash ^ hash >> 32) & t->mask; t->table[at] >= 0; at = (at + 1) & t->mask) {
    const piece *p = &t->pieces[t->table[at]];
    if (p->bytes == bytes && !memcmp(p->text, text, bytes)) return t->table[at];
  }
  return -1;
}

static size_t character_bytes(char lead) {
  unsigned char c = (unsigned char)lead;
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

typedef struct ids_out {
  int32_t *ids;
  int count, room;
  bool cut;
} ids_out;

static void put(ids_out *out, int id) {
  if (out->count < out->room)
    out->ids[out->count++] = id;
  else
    out->cut = true;
}

typedef struct cell { /* the best way to reach a byte position of a word */
  double score;
  int from, id; /* from < 0: not reached */
} cell;

/* The segmentation of one word with the highest sum of scores; the first found wins ties. */
static void encode_word(const mk_tokenizer *t, const char *word, int bytes, cell *cells, ids_out *out) {
  for (int i = 1; i <= bytes; i++) cells[i].from = -1;
  cells[0] = (cell){.score = 0, .from = 0};
  for (int start = 0, step; start < bytes; start += step) {
    step = (int)character_bytes(word[start]);
    if (step > bytes - start) step = bytes - start;
    bool single = false; /* the character alone is a piece */
    uint64_t hash = HASH_START;
    for (int end = start; end < bytes && (size_t)(end - start) < t->longest;) {
      hash = hash_step(hash, word[end++]);
      int id = look_up(t, word + start, (size_t)(end - start), hash);
      if (id < 0) continue;
      double score = cells[start].score + t->pieces[id].score;
      if (cells[end].from < 0 || score > cells[end].score) cells[end] = (cell){score, start, id};
      single = single || end - start == step;
    }
    cell *next = &cells[start + step];
    double score = cells[start].score + t->unk_score;
    if (!single && (next->from < 0 || score > next->score)) *next = (cell){score, start, t->unk};
  }
  int first = bytes; /* reverse the links, then walk forward */
  for (int at = bytes, after = -1; at > 0;) {
    int from = cells[at].from;
    cells[at].from = after;
    after = at;
    at = from;
    if (at == 0) first = after;
  }
  for (int at = first, previous = -1; at > 0; at = cells[at].from) {
    if (cells[at].id != t->unk || previous != t->unk) put(out, cells[at].id);
    previous = cells[at].id;
  }
}

/* Text with no special token in it: spaces become marks, one in front always, and every mark starts a word. */
static bool encode_plain(const mk_tokenizer *t, const char *text, size_t bytes, ids_out *out, mk_status *st) {
  while (bytes && text[bytes - 1] == ' ') bytes--;
  if (!bytes) return true;
  char *marked = malloc(MARK_BYTES * (bytes + 1));
  cell *cells = malloc(sizeof *cells * (MARK_BYTES * (bytes + 1) + 1));
  bool ok = marked && cells;
  if (ok) {
    size_t n = 0;
    if (text[0] != ' ' && strncmp(text, SPACE_MARK, MARK_BYTES)) memcpy(marked, SPACE_MARK, MARK_BYTES), n = MARK_BYTES;
    for (size_t i = 0; i < bytes; i++) {
      if (text[i] != ' ') {
        marked[n++] = text[i];
      } else if (i == 0 || text[i - 1] != ' ') {
        memcpy(marked + n, SPACE_MARK, MARK_BYTES);
        n += MARK_BYTES;
      }
    }
    for (size_t from = 0, to; from < n && !out->cut; from = to) {
      for (to = from + 1; to < n && (n - to < MARK_BYTES || memcmp(marked + to, SPACE_MARK, MARK_BYTES)); to++) {
      }
      encode_word(t, marked + from, (int)(to - from), cells, out);
    }
  } else {
    mk_fail(st, MK_ENOMEM, "no memory to tokenize %zu bytes of text", bytes);
  }
  free(marked);
  free(cells);
  return ok;
}

/* A special token written out at text; returns its length, 0 if there is none. */
static size_t special_at(const mk_tokenizer *t, const char *text, int *id) {
  if (*text != '<') return 0;
  for (int i = 0; i < t->nspecial; i++) {
    const piece *p = &t->pieces[t->special[i]];
    if (!strncmp(text, p->text, p->bytes)) {
      *id = t->special[i];
      return p->bytes;
    }
  }
  int number = 0, end = 0;
  if (sscanf(text, "<extra_id_%6d>%n", &number, &end) != 1 || !end || number < 0 || number >= t->extra_ids) return 0;
  char exact[32];
  if (snprintf(exact, sizeof exact, "<extra_id_%d>", number) != end || strncmp(text, exact, (size_t)end)) return 0;
  *id = t->count + t->extra_ids - 1 - number;
  return (size_t)end;
}

int mk_tokenizer_encode(const mk_tokenizer *t, const char *text, int32_t *ids, int length, bool *truncated, mk_status *st) {
  if (length < 1) {
    mk_fail(st, MK_EINPUT, "a token sequence of length %d has no room for its end token", length);
    return -1;
  }
  ids_out out = {.ids = ids, .room = length - 1};
  const char *plain = text;
  while (*text && !out.cut) {
    int id;
    size_t bytes = special_at(t, text, &id);
    if (!bytes) {
      text++;
      continue;
    }
    if (!encode_plain(t, plain, (size_t)(text - plain), &out, st)) return -1;
    put(&out, id);
    plain = text += bytes;
  }
  if (!out.cut && !encode_plain(t, plain, strlen(plain), &out, st)) return -1;
  ids[out.count++] = t->eos;
  for (int i = out.count; i < length; i++) ids[i] = t->pad;
  if (truncated) *truncated = out.cut;
  return out.count;
}

/* How many <extra_id_N> the tokenizer_config.json beside the model names; 0 when there is no such file. */
static bool read_extra_ids(mk_tokenizer *t, const char *model_path, mk_status *st) {
  const char *slash = strrchr(model_path, '/');
  const char *path = mk_printf(&t->arena, "%.*stokenizer_config.json", slash ? (int)(slash - model_path) + 1 : 0, model_path);
  if (!mk_file_exists(path)) return true;
  json_t *config = mk_json_load_object(path, st);
  if (!config) return false;
  int64_t count = 0;
  bool ok = mk_json_get_int(config, path, "extra_ids", 0, MAX_EXTRA_IDS, &count, st);
  const json_t *names = json_object_get(config, "additional_special_tokens"), *name;
  size_t i;
  json_array_foreach(names, i, name) {
    int number;
    if (json_is_string(name) && sscanf(json_string_value(name), "<extra_id_%6d>", &number) == 1 && number >= count)
      count = number + 1;
  }
  t->extra_ids = (int)count;
  json_decref(config);
  return ok;
}

static bool read_pieces(mk_tokenizer *t, const char *path, mk_status *st) {
  char message[512];
  size_t bytes;
  char *data = mk_file_read(path, &bytes, st);
  if (!data) return false;
  mk_spm *spm = mk_spm_open(data, bytes, message, sizeof message);
  free(data);
  if (!spm) {
    mk_fail(st, MK_EINPUT, "%s is not a SentencePiece model: %s", path, message);
    return false;
  }
  t->count = mk_spm_count(spm);
  t->pad = mk_spm_pad(spm), t->eos = mk_spm_eos(spm), t->unk = mk_spm_unk(spm);
  t->pieces = MK_NEW_ARRAY(&t->arena, piece, t->count);
  double lowest = 0;
  for (int id = 0; id < t->count; id++) {
    piece *p = &t->pieces[id];
    float score;
    mk_spm_kind kind;
    const char *text = mk_spm_piece(spm, id, &p->bytes, &score, &kind);
    p->text = mk_strndup(&t->arena, text, p->bytes);
    p->score = score;
    if (score < lowest) lowest = score;
    if (p->bytes > t->longest) t->longest = p->bytes;
    if (kind == MK_SPM_CONTROL || kind == MK_SPM_UNKNOWN) MK_PUSH(&t->arena, t->special, t->nspecial, t->special_cap, id);
  }
  t->unk_score = lowest - 10;
  mk_spm_close(spm);
  if (t->pad < 0 || t->eos < 0 || t->unk < 0) {
    mk_fail(st, MK_EINPUT, "%s has no %s token; umT5's model (spiece.model) is needed", path,
            t->pad < 0   ? "padding"
            : t->eos < 0 ? "end"
                         : "unknown");
    return false;
  }
  return true;
}

mk_tokenizer *mk_tokenizer_open(const char *path, mk_status *st) {
  mk_tokenizer *t = calloc(1, sizeof *t);
  if (!t) {
    mk_fail(st, MK_ENOMEM, "no memory for the tokenizer");
    return NULL;
  }
  if (!read_pieces(t, path, st) || !read_extra_ids(t, path, st)) {
    mk_tokenizer_close(t);
    return NULL;
  }
  build_table(t);
  return t;
}

void mk_tokenizer_close(mk_tokenizer *t) {
  if (!t) return;
  mk_arena_free(&t->arena);
  free(t);
}

int mk_tokenizer_vocab(const mk_tokenizer *t) { return t->count + t->extra_ids; }
