#include <string.h>

#include "codegen/emit.h"

static uint32_t size_of(mk_arg_kind k) { return k == MK_ARG_TMAP ? 128 : k == MK_ARG_I32 || k == MK_ARG_F32 ? 4 : 8; }
static uint32_t align_of(mk_arg_kind k) { return k == MK_ARG_TMAP ? 64 : size_of(k); }

void mk_fields_add(mk_fields *f, mk_arena *arena, mk_field field) {
  for (int i = 0; i < f->n; i++)
    if (!strcmp(f->items[i].name, field.name)) return;
  MK_PUSH(arena, f->items, f->n, f->cap, field);
}

void mk_fields_layout(mk_fields *f) {
  for (int i = 1; i < f->n; i++) /* stable, by alignment */
    for (int j = i; j > 0 && align_of(f->items[j - 1].kind) < align_of(f->items[j].kind); j--) {
      mk_field t = f->items[j];
      f->items[j] = f->items[j - 1];
      f->items[j - 1] = t;
    }
  uint32_t at = 0, align = 1;
  for (int i = 0; i < f->n; i++) {
    f->items[i].offset = at;
    at += size_of(f->items[i].kind);
    if (align_of(f->items[i].kind) > align) align = align_of(f->items[i].kind);
  }
  f->bytes = (at + align - 1) / align * align;
}

void mk_fields_print(const mk_fields *f, mk_text *out) {
  mk_text_add(out, "struct Params {\n");
  for (int i = 0; i < f->n; i++) {
    const char *type = f->items[i].type;
    mk_text_addf(out, "  %s%s%s;\n", type, type[strlen(type) - 1] == '*' ? "" : " ", f->items[i].name);
  }
  mk_text_addf(out, "};\nstatic_assert(sizeof(Params) == %u, \"the host fills this struct\");\n\n", f->bytes);
}
