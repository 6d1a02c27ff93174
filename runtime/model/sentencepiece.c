/* A model is a protocol buffer: fields, each a tag (number and wire type) and a value; messages are values of bytes.
 *
 *   model    1: piece (repeated)  2: trainer's settings
 *   piece    1: text  2: score, f32  3: kind
 *   trainer  3: algorithm, 1 is unigram  45: text of the unknown piece  47: of the end  48: of the padding
 *
 * Other fields are passed over. */
#include "runtime/model/sentencepiece.h"

#include <stdint.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5, UNIGRAM = 1, MOST_PIECES = 1 << 24 };

typedef struct reader {
  const unsigned char *at, *end;
  const char *bad; /* NULL: all is well so far */
} reader;

typedef struct field {
  uint64_t number;
  int wire;
  uint64_t value;    /* VARINT */
  mk_spm_text bytes; /* the others: the value as it is */
} field;

static reader open_message(mk_spm_text t) {
  const unsigned char *p = (const unsigned char *)t.text;
  return (reader){p, p + t.bytes, NULL};
}

static uint64_t varint(reader *r) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
    unsigned char byte = *r->at++;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return value;
  }
  r->bad = "a number in it has no end";
  return 0;
}

/* The next field; false at the end, and when something is wrong. */
static bool next(reader *r, field *f) {
  if (r->at == r->end || r->bad) return false;
  uint64_t tag = varint(r), length = 0;
  *f = (field){.number = tag >> 3, .wire = (int)(tag & 7)};
  if (f->wire == WIRE_VARINT)
    f->value = varint(r);
  else if (f->wire == WIRE_BYTES)
    length = varint(r);
  else if (f->wire == WIRE_64)
    length = 8;
  else if (f->wire == WIRE_32)
    length = 4;
  else
    r->bad = "it is no protocol buffer";
  if (!r->bad && length > (uint64_t)(r->end - r->at)) r->bad = "it ends in the middle of a field";
  if (r->bad) return false;
  f->bytes = (mk_spm_text){(const char *)r->at, (size_t)length};
  r->at += length;
  return true;
}

static const char *read_piece(mk_spm_text message, mk_spm_piece *p) {
  reader r = open_message(message);
  field f;
  *p = (mk_spm_piece){.kind = MK_SPM_NORMAL};
  while (next(&r, &f)) {
    if (f.number == 1 && f.wire == WIRE_BYTES) p->piece = f.bytes;
    if (f.number == 2 && f.wire == WIRE_32) memcpy(&p->score, f.bytes.text, sizeof p->score);
    if (f.number == 3 && f.wire == WIRE_VARINT) p->kind = (mk_spm_kind)f.value;
  }
  if (!r.bad && !p->piece.bytes) r.bad = "a piece in it is empty";
  if (!r.bad && (p->kind < MK_SPM_NORMAL || p->kind > MK_SPM_BYTE)) r.bad = "a piece in it is of unknown kind";
  return r.bad;
}

typedef struct trainer {
  uint64_t algorithm;
  mk_spm_text unk, eos, pad;
} trainer;

static const char *read_trainer(mk_spm_text message, trainer *t) {
  reader r = open_message(message);
  field f;
  while (next(&r, &f)) {
    if (f.number == 3 && f.wire == WIRE_VARINT) t->algorithm = f.value;
    if (f.number == 45 && f.wire == WIRE_BYTES) t->unk = f.bytes;
    if (f.number == 47 && f.wire == WIRE_BYTES) t->eos = f.bytes;
    if (f.number == 48 && f.wire == WIRE_BYTES) t->pad = f.bytes;
  }
  if (!r.bad && t->algorithm != UNIGRAM) r.bad = "it is not of the unigram kind";
  return r.bad;
}

static int find(const mk_spm *s, mk_spm_text text, mk_spm_kind kind) {
  for (int i = 0; i < s->count; i++) {
    const mk_spm_piece *p = &s->pieces[i];
    if (p->kind == kind && p->piece.bytes == text.bytes && !memcmp(p->piece.text, text.text, text.bytes)) return i;
  }
  return -1;
}

const char *mk_spm_read(mk_spm *out, const void *data, size_t bytes, mk_arena *arena) {
  trainer t = {UNIGRAM, {"<unk>", 5}, {"</s>", 4}, {"<pad>", 5}};
  const mk_spm_text all = {data, bytes};
  reader r = open_message(all);
  field f;
  *out = (mk_spm){0};
  while (next(&r, &f)) {
    if (f.number == 1 && f.wire == WIRE_BYTES) out->count++;
    if (f.number == 2 && f.wire == WIRE_BYTES && (r.bad = read_trainer(f.bytes, &t))) break;
  }
  if (!r.bad && !out->count) r.bad = "it has no pieces";
  if (!r.bad && out->count > MOST_PIECES) r.bad = "it has too many pieces";
  if (r.bad) return r.bad;
  out->pieces = MK_NEW_ARRAY(arena, mk_spm_piece, out->count);
  r = open_message(all);
  for (int i = 0; !r.bad && next(&r, &f);)
    if (f.number == 1 && f.wire == WIRE_BYTES) r.bad = read_piece(f.bytes, &out->pieces[i++]);
  out->unk = find(out, t.unk, MK_SPM_UNKNOWN);
  out->eos = find(out, t.eos, MK_SPM_CONTROL);
  out->pad = find(out, t.pad, MK_SPM_CONTROL);
  return r.bad;
}
