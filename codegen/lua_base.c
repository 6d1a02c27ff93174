/* Base functions whose originals could run without end inside C, swallow the sandbox's stop, or give another order on another run
 * (Lua seeds its string hash anew every time). */
#include <string.h>

#include "codegen/lua_script.h"

enum { PCALL_DEPTH = 200 };

/* ---- walking tables in one fixed order: false, true, numbers, strings */

static int key_class(lua_State *L, int index, const char *what) {
  switch (lua_type(L, index)) {
    case LUA_TBOOLEAN: return lua_toboolean(L, index);
    case LUA_TNUMBER: return 2;
    case LUA_TSTRING: return 3;
    default:
      return luaL_error(L, "%s: a key is a %s; only numbers, strings and booleans have an order", what, luaL_typename(L, index));
  }
}

static bool key_less(lua_State *L, int a, int b, const char *what) {
  int ca = key_class(L, a, what), cb = key_class(L, b, what);
  if (ca != cb || ca < 2) return ca < cb;
  if (ca == 2) return lua_compare(L, a, b, LUA_OPLT);
  size_t na, nb; /* by bytes: the comparison of Lua depends on the locale */
  const char *sa = lua_tolstring(L, a, &na), *sb = lua_tolstring(L, b, &nb);
  int order = memcmp(sa, sb, na < nb ? na : nb);
  return order ? order < 0 : na < nb;
}

/* next(t[, k]): the smallest key above k, and its value. */
static int base_next(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  bool from_start = lua_isnil(L, 2);
  lua_pushnil(L); /* 3: the best key so far */
  int64_t seen = 0;
  for (lua_pushnil(L); lua_next(L, 1); seen++) {
    lua_pop(L, 1);
    bool above = from_start || key_less(L, 2, 4, "next");
    if (above && (lua_isnil(L, 3) || key_less(L, 4, 3, "next"))) {
      lua_pushvalue(L, 4);
      lua_replace(L, 3);
    }
  }
  mk_sandbox_charge(mk_script_of(L), seen);
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) return 1;
  lua_pushvalue(L, 3);
  lua_rawget(L, 1);
  return 2;
}

/* Iterator over a sorted list of keys. Upvalues: the keys, the position, the table. */
static int pairs_step(lua_State *L) {
  for (;;) {
    lua_Integer at = lua_tointeger(L, lua_upvalueindex(2)) + 1;
    lua_pushinteger(L, at);
    lua_replace(L, lua_upvalueindex(2));
    if (lua_rawgeti(L, lua_upvalueindex(1), at) == LUA_TNIL) return 1;
    lua_pushvalue(L, -1);
    if (lua_rawget(L, lua_upvalueindex(3)) != LUA_TNIL) return 2;
    lua_pop(L, 2); /* removed since */
  }
}

/* Sinks entry `at` of the heap of `count` keys in table 2; the greatest key stands first. */
static void sift(lua_State *L, lua_Integer at, lua_Integer count) {
  for (lua_Integer child; (child = 2 * at) <= count; at = child) {
    lua_rawgeti(L, 2, child);
    if (child < count) {
      lua_rawgeti(L, 2, child + 1);
      if (key_less(L, -2, -1, "pairs")) {
        lua_remove(L, -2);
        child++;
      } else {
        lua_pop(L, 1);
      }
    }
    lua_rawgeti(L, 2, at);
    if (!key_less(L, -1, -2, "pairs")) {
      lua_pop(L, 2);
      return;
    }
    lua_rawseti(L, 2, child);
    lua_rawseti(L, 2, at);
  }
}

static int base_pairs(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_newtable(L);
  lua_Integer count = 0;
  for (lua_pushnil(L); lua_next(L, 1);) {
    lua_pop(L, 1);
    key_class(L, -1, "pairs");
    lua_pushvalue(L, -1);
    lua_rawseti(L, 2, ++count);
  }
  mk_sandbox_charge(mk_script_of(L), 4 * (int64_t)count);
  for (lua_Integer i = count / 2; i >= 1; i--) sift(L, i, count);
  for (lua_Integer i = count; i > 1; i--) {
    lua_rawgeti(L, 2, 1);
    lua_rawgeti(L, 2, i);
    lua_rawseti(L, 2, 1);
    lua_rawseti(L, 2, i);
    sift(L, 1, i - 1);
  }
  lua_pushinteger(L, 0);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, pairs_step, 3);
  return 1;
}

/* ---- text without addresses */

static void push_text(lua_State *L, int index) {
  int type = lua_type(L, index);
  if (type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TNIL || type == LUA_TBOOLEAN ||
      luaL_getmetafield(L, index, "__tostring") != LUA_TNIL) {
    luaL_tolstring(L, index, NULL);
  } else {
    lua_pushstring(L, luaL_typename(L, index));
  }
}

static int base_tostring(lua_State *L) {
  luaL_checkany(L, 1);
  push_text(L, 1);
  return 1;
}

static int original(lua_State *L) { return lua_tocfunction(L, lua_upvalueindex(1))(L); }

static int string_format(lua_State *L) {
  const char *p = luaL_checkstring(L, 1);
  while ((p = strchr(p, '%'))) {
    p += 1 + strspn(p + 1, "-+ #0123456789.");
    if (*p == 'p') return luaL_error(L, "format: '%%p' is not available");
    if (*p) p++;
  }
  for (int i = 2, n = lua_gettop(L); i <= n; i++)
    if (lua_type(L, i) == LUA_TTABLE || lua_type(L, i) == LUA_TFUNCTION) {
      push_text(L, i);
      lua_replace(L, i);
      lua_settop(L, n);
    }
  return original(L);
}

/* ---- bounded work inside C */

static int string_rep(lua_State *L) {
  size_t len, sep = 0;
  luaL_checklstring(L, 1, &len);
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_optlstring(L, 3, "", &sep);
  if (n <= 0 || len + sep == 0) return lua_pushliteral(L, ""), 1;
  mk_script *s = mk_script_of(L);
  size_t room = 2 * s->max_memory - (s->used < 2 * s->max_memory ? s->used : 2 * s->max_memory);
  if ((size_t)n > room / 2 / (len + sep))
    return luaL_error(L, "rep: %I times %I bytes is more than the script's memory limit", (LUAI_UACINT)n,
                      (LUAI_UACINT)(len + sep));
  return original(L);
}

/* How many parts of a pattern can match at various lengths. */
static int repetitions(const char *p, const char *end) {
  int count = 0;
  while (p < end) {
    char c = *p++;
    if (c == '%' && p < end) {
      count += *p == 'b';
      p++;
    } else if (c == '[') {
      if (p < end && *p == '^') p++;
      do { /* the first character stands for itself even if it is ']' */
        p += p + 1 < end && *p == '%' ? 2 : 1;
      } while (p < end && *p != ']');
      p++;
    } else {
      count += c == '*' || c == '+' || c == '-';
    }
  }
  return count;
}

/* find, match, gmatch, gsub: matching may go back over every choice of lengths; the number of choices is bounded before. */
static int string_match(lua_State *L) {
  size_t len, pattern_len;
  luaL_checklstring(L, 1, &len);
  const char *pattern = luaL_checklstring(L, 2, &pattern_len);
  int parts = repetitions(pattern, pattern + pattern_len);
  double choices = (double)len + 1;
  for (int i = 1; i <= parts && choices < 1e9; i++) choices *= ((double)len + 1) / i;
  if (choices >= 1e9)
    return luaL_error(L, "a pattern with %d repetitions on a text of %I bytes could take too long", parts, (LUAI_UACINT)len);
  mk_sandbox_charge(mk_script_of(L), (int64_t)(choices / 16));
  return original(L);
}

static int table_function(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_getmetatable(L, 1)) return luaL_error(L, "table functions take tables with no metatable");
  mk_sandbox_charge(mk_script_of(L), (int64_t)lua_rawlen(L, 1) / 16);
  return original(L);
}

static int base_setmetatable(lua_State *L) {
  if (lua_type(L, 2) == LUA_TTABLE) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "setmetatable: __gc is not available");
    lua_pop(L, 1);
  }
  return original(L);
}

/* pcall, except that the sandbox's own stop and lack of memory go on outwards. Not deep down: unwinding an error walks all that
 * is above, so a recursion through pcall would take the square of its depth. */
static int base_pcall(lua_State *L) {
  lua_Debug deep;
  luaL_checkany(L, 1);
  if (lua_getstack(L, PCALL_DEPTH, &deep)) return luaL_error(L, "pcall: called more than %d functions deep", PCALL_DEPTH);
  lua_pushboolean(L, 1);
  lua_insert(L, 1);
  int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
  if (status == LUA_OK) return lua_gettop(L);
  if (mk_script_of(L)->stopped || status == LUA_ERRMEM) return lua_error(L);
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

/* Puts f in the place of the table's function, which it can call as `original`. */
static void wrap(lua_State *L, const char *library, const char *name, lua_CFunction f) {
  lua_getglobal(L, library);
  lua_getfield(L, -1, name);
  lua_pushcclosure(L, f, 1);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

void mk_lua_base(lua_State *L) {
  lua_register(L, "next", base_next);
  lua_register(L, "pairs", base_pairs);
  lua_register(L, "pcall", base_pcall);
  lua_register(L, "tostring", base_tostring);
  wrap(L, "_G", "setmetatable", base_setmetatable);
  wrap(L, "string", "rep", string_rep);
  wrap(L, "string", "format", string_format);
  static const char *const matching[] = {"find", "match", "gmatch", "gsub"};
  for (size_t i = 0; i < sizeof matching / sizeof *matching; i++) wrap(L, "string", matching[i], string_match);
  static const char *const lists[] = {"concat", "insert", "remove", "sort"};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) wrap(L, "table", lists[i], table_function);
}
