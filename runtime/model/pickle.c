#include "runtime/model/pickle.h"

#include <string.h>

enum { MAX_STACK = 1 << 20, MAX_MEMO = 1 << 22, MAX_RANK = 64 };

typedef enum kind { NONE, BOOL, INT, FLOAT, STRING, TUPLE, LIST, DICT, CALLABLE, STORAGE_TYPE, STORAGE, TENSOR, MARK } kind;
typedef enum callable { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER } callable;

typedef struct value value;
struct value {
  kind kind;
  int64_t integer;  /* BOOL, INT; CALLABLE: which; STORAGE: elements */
  const char *text; /* STRING; STORAGE_TYPE and STORAGE: dtype */
  const char *key;  /* STORAGE */
  value **items;    /* TUPLE, LIST; DICT: key, value, key, value... */
  int count, cap;
  mk_pickled_tensor *tensor; /* TENSOR */
};

typedef struct machine {
  mk_arena *arena;
  const uint8_t *at, *end;
  const char *path;
  mk_status *st;
  value **stack, **memo;
  int depth, stack_cap, memo_count, memo_cap;
} machine;

static bool refuse(machine *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(machine *m, const char *format, ...) {
  va_list args;
  va_start(args, format);
  mk_vfail(m->st, MK_EINPUT, format, args);
  va_end(args);
  mk_fail_context(m->st, "%s: its pickle", m->path);
  return false;
}

static bool push(machine *m, value *v) {
  if (m->depth >= MAX_STACK) return refuse(m, "nests too deeply");
  MK_PUSH(m->arena, m->stack, m->depth, m->stack_cap, v);
  return true;
}

static value *make(machine *m, kind k) {
  value *v = MK_NEW(m->arena, value);
  v->kind = k;
  return v;
}

static bool push_new(machine *m, kind k, int64_t integer) {
  value *v = make(m, k);
  v->integer = integer;
  return push(m, v);
}

/* NULL, refused, when the stack is empty or a mark is in the way. */
static value *pop(machine *m) {
  if (m->depth && m->stack[m->depth - 1]->kind != MARK) return m->stack[--m->depth];
  refuse(m, "takes from an empty stack");
  return NULL;
}

static value *top(machine *m, kind k) {
  if (m->depth && m->stack[m->depth - 1]->kind == k) return m->stack[m->depth - 1];
  refuse(m, "fills or builds something that is no plain container");
  return NULL;
}

static const uint8_t *take(machine *m, uint64_t bytes) {
  if (bytes > (uint64_t)(m->end - m->at)) {
    refuse(m, "ends early");
    return NULL;
  }
  const uint8_t *p = m->at;
  m->at += bytes;
  return p;
}

static bool take_number(machine *m, int bytes, uint64_t *out) {
  const uint8_t *p = take(m, (uint64_t)bytes);
  *out = 0;
  for (int i = 0; p && i < bytes; i++) *out |= (uint64_t)p[i] << 8 * i;
  return p != NULL;
}

static const char *take_line(machine *m) {
  const uint8_t *newline = memchr(m->at, '\n', (size_t)(m->end - m->at));
  if (!newline) {
    refuse(m, "ends early");
    return NULL;
  }
  const char *line = mk_strndup(m->arena, (const char *)m->at, (size_t)(newline - m->at));
  m->at = newline + 1;
  return line;
}

static bool push_string(machine *m, int length_bytes) {
  uint64_t length;
  const uint8_t *p = take_number(m, length_bytes, &length) ? take(m, length) : NULL;
  if (!p) return false;
  if (memchr(p, 0, length)) return refuse(m, "has a string with a zero byte");
  value *v = make(m, STRING);
  v->text = mk_strndup(m->arena, (const char *)p, length);
  return push(m, v);
}

/* The names a pickle may refer to; the list is the whole of what it can do. */
static bool push_global(machine *m, const char *module, const char *name) {
  static const struct {
    const char *name, *dtype;
  } storages[] = {{"FloatStorage", "F32"}, {"HalfStorage", "F16"},   {"BFloat16Storage", "BF16"}, {"IntStorage", "I32"},
                  {"LongStorage", "I64"},  {"DoubleStorage", "F64"}, {"ShortStorage", "I16"},     {"CharStorage", "I8"},
                  {"ByteStorage", "U8"},   {"BoolStorage", "BOOL"}};
  if (!strcmp(module, "collections") && !strcmp(name, "OrderedDict")) return push_new(m, CALLABLE, ORDERED_DICT);
  if (!strcmp(module, "torch._utils") && !strcmp(name, "_rebuild_tensor_v2")) return push_new(m, CALLABLE, REBUILD_TENSOR);
  if (!strcmp(module, "torch._utils") && !strcmp(name, "_rebuild_parameter")) return push_new(m, CALLABLE, REBUILD_PARAMETER);
  for (size_t i = 0; !strcmp(module, "torch") && i < sizeof storages / sizeof *storages; i++)
    if (!strcmp(name, storages[i].name)) {
      value *v = make(m, STORAGE_TYPE);
      v->text = storages[i].dtype;
      return push(m, v);
    }
  return refuse(m, "asks for %.100s.%.100s; only dictionaries of plain tensors are read", module, name);
}

/* A tuple of everything above the last mark, which goes. */
static bool fold_to_mark(machine *m, value *into) {
  int from = m->depth;
  while (from > 0 && m->stack[from - 1]->kind != MARK) from--;
  if (from == 0) return refuse(m, "closes a list that it never opened");
  for (int i = from; i < m->depth; i++) MK_PUSH(m->arena, into->items, into->count, into->cap, m->stack[i]);
  m->depth = from - 1;
  return true;
}

static bool push_tuple(machine *m, int count) {
  value *tuple = make(m, TUPLE);
  tuple->items = MK_NEW_ARRAY(m->arena, value *, count + 1);
  tuple->count = count;
  for (int i = count - 1; i >= 0; i--)
    if (!(tuple->items[i] = pop(m))) return false;
  return push(m, tuple);
}

/* Moves what lies above the mark into the container below it. */
static bool extend(machine *m, kind k) {
  value more = {0};
  if (!fold_to_mark(m, &more)) return false;
  value *into = top(m, k);
  if (!into) return false;
  if (k == DICT && more.count % 2) return refuse(m, "has a key without a value");
  for (int i = 0; i < more.count; i++) MK_PUSH(m->arena, into->items, into->count, into->cap, more.items[i]);
  return true;
}

static bool add(machine *m, kind k) {
  value *second = pop(m), *first = k == DICT && second ? pop(m) : second;
  value *into = first ? top(m, k) : NULL;
  if (!into) return false;
  MK_PUSH(m->arena, into->items, into->count, into->cap, first);
  if (k == DICT) MK_PUSH(m->arena, into->items, into->count, into->cap, second);
  return true;
}

static bool remember(machine *m, uint64_t index) {
  if (!m->depth || index >= MAX_MEMO) return refuse(m, "remembers nothing, or too much");
  while (m->memo_count <= (int)index) MK_PUSH(m->arena, m->memo, m->memo_count, m->memo_cap, NULL);
  m->memo[index] = m->stack[m->depth - 1];
  return true;
}

static bool recall(machine *m, uint64_t index) {
  if (index >= (uint64_t)m->memo_count || !m->memo[index]) return refuse(m, "recalls what it never remembered");
  return push(m, m->memo[index]);
}

/* ("storage", type, key, device, elements) */
static bool push_storage(machine *m) {
  value *id = pop(m);
  if (!id) return false;
  value **p = id->items;
  if (id->kind != TUPLE || id->count != 5 || p[0]->kind != STRING || strcmp(p[0]->text, "storage") ||
      p[1]->kind != STORAGE_TYPE || p[2]->kind != STRING || p[4]->kind != INT || p[4]->integer < 0)
    return refuse(m, "refers to something that is no tensor storage");
  value *v = make(m, STORAGE);
  v->text = p[1]->text;
  v->key = p[2]->text;
  v->integer = p[4]->integer;
  return push(m, v);
}

static const int64_t *integers(machine *m, const value *tuple) {
  int64_t *out = MK_NEW_ARRAY(m->arena, int64_t, tuple->count + 1);
  for (int i = 0; i < tuple->count; i++) {
    if (tuple->items[i]->kind != INT || tuple->items[i]->integer < 0) {
      refuse(m, "has a tensor whose sizes are no natural numbers");
      return NULL;
    }
    out[i] = tuple->items[i]->integer;
  }
  return out;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, ...) */
static bool push_tensor(machine *m, const value *args) {
  value **p = args->items;
  if (args->count < 4 || p[0]->kind != STORAGE || p[1]->kind != INT || p[1]->integer < 0 || p[2]->kind != TUPLE ||
      p[3]->kind != TUPLE || p[2]->count != p[3]->count || p[2]->count > MAX_RANK)
    return refuse(m, "has a malformed tensor");
  value *v = make(m, TENSOR);
  v->tensor = MK_NEW(m->arena, mk_pickled_tensor);
  *v->tensor = (mk_pickled_tensor){.dtype = p[0]->text,
                                   .storage = p[0]->key,
                                   .storage_count = p[0]->integer,
                                   .offset = p[1]->integer,
                                   .rank = p[2]->count,
                                   .dims = integers(m, p[2]),
                                   .strides = integers(m, p[3])};
  return v->tensor->dims && v->tensor->strides && push(m, v);
}

static bool call(machine *m) {
  value *args = pop(m), *callee = args ? pop(m) : NULL;
  if (!callee) return false;
  if (callee->kind != CALLABLE || args->kind != TUPLE) return refuse(m, "calls something that is no function");
  switch ((callable)callee->integer) {
    case ORDERED_DICT: return args->count ? refuse(m, "has a malformed dictionary") : push(m, make(m, DICT));
    case REBUILD_TENSOR: return push_tensor(m, args);
    case REBUILD_PARAMETER:
      if (!args->count || args->items[0]->kind != TENSOR) return refuse(m, "has a malformed parameter");
      return push(m, args->items[0]);
  }
  return refuse(m, "calls something unknown");
}

static bool push_long(machine *m) {
  uint64_t length, bits;
  if (!take_number(m, 1, &length)) return false;
  if (length > 8) return refuse(m, "has an integer of more than 64 bits");
  if (!take_number(m, (int)length, &bits)) return false;
  if (length && length < 8 && bits >> (8 * length - 1)) bits |= ~0ull << 8 * length;
  return push_new(m, INT, (int64_t)bits);
}

static bool named_global(machine *m) {
  const char *module = take_line(m), *name = module ? take_line(m) : NULL;
  return name && push_global(m, module, name);
}

static bool stacked_global(machine *m) {
  value *name = pop(m), *module = name ? pop(m) : NULL;
  if (!module) return false;
  if (module->kind != STRING || name->kind != STRING) return refuse(m, "has a malformed reference");
  return push_global(m, module->text, name->text);
}

/* Attributes of an object: a state_dict carries version numbers there, which nothing here needs. */
static bool ignore_attributes(machine *m) { return pop(m) && top(m, DICT); }

static bool step(machine *m, uint8_t op) {
  uint64_t n;
  switch (op) {
    case 0x80: return take_number(m, 1, &n) && ((n >= 2 && n <= 5) || refuse(m, "is of an unknown version"));
    case 0x95: return take_number(m, 8, &n);
    case '(': return push_new(m, MARK, 0);
    case 'N': return push_new(m, NONE, 0);
    case 0x88: return push_new(m, BOOL, 1);
    case 0x89: return push_new(m, BOOL, 0);
    case 'J': return take_number(m, 4, &n) && push_new(m, INT, (int32_t)(uint32_t)n);
    case 'K': return take_number(m, 1, &n) && push_new(m, INT, (int64_t)n);
    case 'M': return take_number(m, 2, &n) && push_new(m, INT, (int64_t)n);
    case 0x8a: return push_long(m);
    case 'G': return take(m, 8) && push_new(m, FLOAT, 0);
    case 'X': return push_string(m, 4);
    case 0x8c: return push_string(m, 1);
    case ')': return push_tuple(m, 0);
    case 0x85: return push_tuple(m, 1);
    case 0x86: return push_tuple(m, 2);
    case 0x87: return push_tuple(m, 3);
    case 't': {
      value *tuple = make(m, TUPLE);
      return fold_to_mark(m, tuple) && push(m, tuple);
    }
    case ']': return push(m, make(m, LIST));
    case '}': return push(m, make(m, DICT));
    case 'a': return add(m, LIST);
    case 'e': return extend(m, LIST);
    case 's': return add(m, DICT);
    case 'u': return extend(m, DICT);
    case 'q': return take_number(m, 1, &n) && remember(m, n);
    case 'r': return take_number(m, 4, &n) && remember(m, n);
    case 0x94: return remember(m, (uint64_t)m->memo_count);
    case 'h': return take_number(m, 1, &n) && recall(m, n);
    case 'j': return take_number(m, 4, &n) && recall(m, n);
    case 'c': return named_global(m);
    case 0x93: return stacked_global(m);
    case 'Q': return push_storage(m);
    case 'R': return call(m);
    case 'b': return ignore_attributes(m);
  }
  return refuse(m, "uses operation 0x%02x, which a dictionary of tensors does not need", op);
}

bool mk_pickle_read(mk_arena *arena, const uint8_t *data, size_t bytes, const char *path, mk_pickled_tensor **out, int *count,
                    mk_status *st) {
  machine m = {.arena = arena, .at = data, .end = data + bytes, .path = path, .st = st};
  for (;;) {
    const uint8_t *op = take(&m, 1);
    if (!op) return false;
    if (*op == '.') break;
    if (!step(&m, *op)) return false;
  }
  value *dict = top(&m, DICT);
  if (!dict) return false;
  *count = dict->count / 2;
  *out = MK_NEW_ARRAY(arena, mk_pickled_tensor, *count + 1);
  for (int i = 0; i < *count; i++) {
    const value *key = dict->items[2 * i], *item = dict->items[2 * i + 1];
    if (key->kind != STRING) return refuse(&m, "has a dictionary key that is no string");
    if (item->kind != TENSOR)
      return refuse(&m, "has no tensor at \"%.200s\"; save the state_dict alone, or as safetensors", key->text);
    (*out)[i] = *item->tensor;
    (*out)[i].name = key->text;
  }
  return true;
}
