/* Bodies in words: names, comments and keys. */
#include <string.h>

#include "codegen/emit_internal.h"

static bool has(const mk_body *b, mk_inst_kind kind, mk_op op) {
  for (int i = 0; i < b->ninsts; i++)
    if (b->insts[i].kind == kind && (kind == MK_INST_ROPE || b->insts[i].op == op)) return true;
  return false;
}

void mk_body_summary(const mk_body *b, mk_text *out) {
  static const struct {
    mk_inst_kind kind;
    mk_op op;
    const char *word;
  } words[] = {{MK_INST_OP, MK_OP_GELU, "gelu"}, {MK_INST_OP, MK_OP_SILU, "silu"}, {MK_INST_ROPE, MK_OP_ROPE, "rope"}};
  size_t start = out->len;
  int ops = 0;
  bool gathers = false, norm = has(b, MK_INST_REDUCE, MK_OP_MEAN) || has(b, MK_INST_REDUCE, MK_OP_SUM);
  for (int i = 0; i < b->ninsts; i++) ops += b->insts[i].kind == MK_INST_OP && b->insts[i].op != MK_OP_CAST;
  for (int i = 0; i < b->naccesses; i++) gathers |= b->accesses[i].gather;
  if (gathers) mk_text_add(out, "_gather");
  if (norm) mk_text_add(out, has(b, MK_INST_OP, MK_OP_RSQRT) || has(b, MK_INST_OP, MK_OP_SQRT) ? "_norm" : "_reduce");
  if (has(b, MK_INST_REDUCE, MK_OP_AMAX)) mk_text_add(out, "_amax");
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (has(b, words[i].kind, words[i].op)) mk_text_addf(out, "_%s", words[i].word);
  if (out->len == start) mk_text_add(out, ops ? "_map" : has(b, MK_INST_OP, MK_OP_CAST) ? "_cast" : "_copy");
  memmove(out->data + start, out->data + start + 1, out->len - start); /* the first underscore, and the NUL comes along */
  out->len--;
}

static void add_axes(const mk_body *b, const mk_access *a, mk_text *out) {
  mk_stride_class class[MK_MAX_AXES];
  mk_stride_classes(b, a, class);
  mk_text_add(out, "[");
  if (a->gather) mk_text_add(out, "index, ");
  bool first = true;
  for (int i = 0; i < b->naxes; i++) {
    if (class[i] == MK_STRIDE_ZERO) continue;
    if (!first) mk_text_add(out, ", ");
    first = false;
    if (i < b->nrows)
      mk_text_addf(out, b->nrows > 1 ? "row%d" : "row", i);
    else
      mk_text_addf(out, class[i] == MK_STRIDE_CONST ? "%lld" : "%lld strided", (long long)b->extent[i]);
  }
  mk_text_add(out, "]");
}

static void add_operand(const mk_body *b, int i, mk_text *out) {
  if (b->insts[i].kind == MK_INST_LITERAL)
    mk_text_addf(out, " %.9g", (double)b->insts[i].value);
  else
    mk_text_addf(out, " v%d", i);
}

void mk_body_comment(const mk_body *b, mk_text *out) {
  int in_of[512], ins = 0, outs = 0;
  for (int i = 0; i < b->naccesses && i < 512; i++) in_of[i] = b->accesses[i].store ? outs++ : ins++;
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    if (in->kind == MK_INST_LITERAL) continue;
    mk_text_add(out, " *   ");
    if (in->kind == MK_INST_STORE) {
      mk_text_addf(out, "out%d %s ", in_of[in->access], mk_dtype_name(in->dtype));
      add_axes(b, &b->accesses[in->access], out);
      mk_text_add(out, " =");
      add_operand(b, in->a, out);
    } else if (in->kind == MK_INST_LOAD) {
      mk_text_addf(out, "v%d = in%d %s ", i, in_of[in->access], mk_dtype_name(in->dtype));
      add_axes(b, &b->accesses[in->access], out);
      if (in->a >= 0) mk_text_addf(out, " at v%d", in->a);
    } else {
      mk_text_addf(out, "v%d = %s", i, in->kind == MK_INST_ROOT ? b->root_op : mk_op_name(in->op));
      if (in->kind == MK_INST_OP && in->op == MK_OP_CAST) mk_text_addf(out, " %s", mk_dtype_name(in->dtype));
      int args[3] = {in->a, in->b, in->c};
      for (int k = 0; k < 3; k++)
        if (args[k] >= 0) add_operand(b, args[k], out);
    }
    mk_text_add(out, "\n");
  }
}

/* In hexadecimal: a key is made for every candidate of every group, and printf would take most of the planning's time. */
static void add_number(mk_text *out, int64_t v) {
  char digits[20];
  char *end = digits + sizeof digits, *at = end;
  uint64_t rest = v < 0 ? -(uint64_t)v : (uint64_t)v;
  *--at = ' ';
  do *--at = "0123456789abcdef"[rest & 15];
  while (rest >>= 4);
  if (v < 0) *--at = '-';
  mk_text_add_n(out, at, (size_t)(end - at));
}

void mk_body_key(const mk_body *b, mk_text *out) {
  const int sizes[] = {b->nrows, b->naxes, b->reduces, b->naccesses, b->ninsts};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) add_number(out, sizes[i]);
  mk_text_add(out, b->root_op ? b->root_op : "-");
  mk_text_add(out, " ");
  for (int i = b->nrows; i < b->naxes; i++) add_number(out, b->extent[i]);
  for (int i = 0; i < b->naccesses; i++) {
    const mk_access *a = &b->accesses[i];
    mk_stride_class class[MK_MAX_AXES];
    mk_stride_classes(b, a, class);
    bool stored = false; /* loads of a buffer that is also written are scheduled differently */
    for (int j = 0; j < b->naccesses; j++) stored |= b->accesses[j].store && b->accesses[j].buffer == a->buffer;
    const int fields[] = {a->dtype, a->store, a->gather, stored, mk_access_alignment(b, a, 8)};
    for (size_t j = 0; j < sizeof fields / sizeof *fields; j++) add_number(out, fields[j]);
    for (int j = 0; j < b->naxes; j++) {
      if (class[j] == MK_STRIDE_CONST)
        add_number(out, a->stride[j]);
      else
        mk_text_add(out, class[j] == MK_STRIDE_ZERO ? "z " : "s ");
    }
  }
  for (int i = 0; i < b->ninsts; i++) {
    const mk_inst *in = &b->insts[i];
    bool access = in->kind == MK_INST_LOAD || in->kind == MK_INST_STORE;
    const int fields[] = {in->kind, in->op, in->dtype, in->a, in->b, in->c, access ? in->access : -1, (int)in->axes};
    for (size_t j = 0; j < sizeof fields / sizeof *fields; j++) add_number(out, fields[j]);
    uint32_t bits; /* of the literal: 0 and -0 are two kernels */
    memcpy(&bits, &in->value, sizeof bits);
    if (in->kind == MK_INST_LITERAL) add_number(out, bits);
  }
}
