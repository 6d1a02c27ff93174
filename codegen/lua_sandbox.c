/* The sandbox: budgets of instructions and memory, and the standard library without what could leave them.
 *
 * Memory above the limit is granted up to twice the limit, and the next instruction raises the error, since an error raised there
 * can name its line and one raised by the allocator cannot. Bytes allocated count as instructions too, so that work done inside C
 * functions is bounded with them. Finalizers and coroutines are left out: no hook would reach into them. */
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/lua_script.h"

enum { HOOK_STEP = 1000, BYTES_PER_INSTRUCTION = 64, TRACE_FRAMES = 4, TRACE_LEVELS = 64 };

mk_script *mk_script_of(lua_State *L) { return *(mk_script **)lua_getextraspace(L); }

static void hook(lua_State *L, lua_Debug *ar);

static void set_step(mk_script *s, int step) {
  s->hook_step = step;
  lua_sethook(s->L, hook, LUA_MASKCOUNT, step);
}

static void stop(mk_script *s) {
  s->stopped = true;
  set_step(s, 1); /* whatever catches the error gets no further */
}

static void hook(lua_State *L, lua_Debug *ar) {
  mk_script *s = mk_script_of(L);
  s->instructions += s->hook_step;
  if (s->over_memory && !s->stopped) {
    lua_gc(L, LUA_GCCOLLECT);
    s->over_memory = s->used > s->max_memory / 10 * 9;
    if (!s->over_memory) set_step(s, HOOK_STEP);
  }
  bool too_long = s->instructions > s->max_instructions;
  if (!s->over_memory && !too_long) {
    if (s->hook_step != HOOK_STEP) set_step(s, HOOK_STEP);
    return;
  }
  stop(s);
  lua_getinfo(L, "Sl", ar);
  if (s->over_memory)
    lua_pushfstring(L, "%s:%d: the script needs more than %d KiB of memory", ar->short_src, ar->currentline,
                    (int)(s->max_memory >> 10));
  else
    lua_pushfstring(L, "%s:%d: the script runs for more than %I instructions; is a loop endless?", ar->short_src, ar->currentline,
                    (LUAI_UACINT)s->max_instructions);
  lua_error(L);
}

void mk_sandbox_charge(mk_script *s, int64_t instructions) {
  s->instructions += instructions;
  if (s->instructions > s->max_instructions && s->hook_step != 1) set_step(s, 1);
}

static void *allocate(void *self, void *ptr, size_t old_bytes, size_t bytes) {
  mk_script *s = self;
  size_t old = ptr ? old_bytes : 0; /* otherwise it holds the kind of object */
  if (!bytes) {
    free(ptr);
    s->used -= old;
    return NULL;
  }
  if (bytes > old) {
    if (bytes > 2 * s->max_memory || s->used - old + bytes > 2 * s->max_memory) return NULL;
    if (s->L) mk_sandbox_charge(s, (int64_t)(bytes / BYTES_PER_INSTRUCTION));
  }
  void *p = realloc(ptr, bytes);
  if (!p) return NULL;
  s->used = s->used - old + bytes;
  if (s->used > s->max_memory && !s->over_memory && s->L) {
    s->over_memory = true;
    set_step(s, 1);
  }
  return p;
}

lua_State *mk_sandbox_open(mk_script *s) {
  lua_State *L = lua_newstate(allocate, s);
  if (!L) return NULL;
  *(mk_script **)lua_getextraspace(L) = s;
  s->L = L;
  set_step(s, HOOK_STEP);
  return L;
}

/* Removes from the table on the top of the stack every field whose name is not in the list " a b c ". */
static void keep_only(lua_State *L, const char *allowed) {
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    const char *key = lua_tostring(L, -2);
    char word[64];
    snprintf(word, sizeof word, " %s ", key);
    if (strstr(allowed, word)) continue;
    lua_pushnil(L);
    lua_setfield(L, -4, key); /* clearing a field while walking is permitted */
  }
}

void mk_sandbox_libs(lua_State *L) {
  static const struct {
    const char *name;
    lua_CFunction open;
    const char *allowed;
  } libs[] = {
      {LUA_GNAME, luaopen_base,
       " _G assert error ipairs select tonumber type getmetatable setmetatable rawget rawset rawequal rawlen "},
      {LUA_STRLIBNAME, luaopen_string, " byte char find format gmatch gsub len lower match rep reverse sub upper "},
      {LUA_TABLIBNAME, luaopen_table, " concat insert pack remove sort unpack "},
      {LUA_MATHLIBNAME, luaopen_math,
       " abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf pi rad sin sqrt tan "
       "tointeger type "
       "ult "},
  };
  for (size_t i = 0; i < sizeof libs / sizeof *libs; i++) {
    luaL_requiref(L, libs[i].name, libs[i].open, 1);
    keep_only(L, libs[i].allowed);
    lua_pop(L, 1);
  }
  mk_lua_base(L);
}

/* ---- where a message comes from */

/* The position of the level-th function if it is a Lua function. 1: yes, 0: no, -1: there is no such level. */
static int position(lua_State *L, int level, char *buf) {
  lua_Debug ar;
  if (!lua_getstack(L, level, &ar)) return -1;
  lua_getinfo(L, "Sl", &ar);
  if (ar.currentline <= 0) return 0;
  snprintf(buf, MK_WHERE_TEXT, "%s:%d", ar.short_src, ar.currentline);
  return 1;
}

const char *mk_script_where(lua_State *L, char *buf) {
  int found = 0;
  snprintf(buf, MK_WHERE_TEXT, "script");
  for (int level = 0; !found; level++) found = position(L, level, buf);
  return buf;
}

static const char *script_name(lua_State *L) {
  const char *path = mk_script_of(L)->path, *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* Length of a leading "file:12" that ": " follows, the file being the script or an included one; 0 if there is none. */
static size_t leading_position(lua_State *L, const char *message) {
  const char *name = script_name(L);
  size_t file = strcspn(message, ":\n"), digits = message[file] == ':' ? strspn(message + file + 1, "0123456789") : 0;
  bool known = (file > 4 && !strncmp(message + file - 4, ".lua", 4)) || (file == strlen(name) && !strncmp(message, name, file));
  return known && digits && message[file + 1 + digits] == ':' ? file + 1 + digits : 0;
}

int mk_sandbox_handler(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING) {
    lua_pushfstring(L, "the error value is a %s, not a message", luaL_typename(L, 1));
    lua_replace(L, 1);
  }
  const char *message = lua_tostring(L, 1);
  size_t lead = leading_position(L, message);
  luaL_Buffer out;
  luaL_buffinit(L, &out);
  char at[MK_WHERE_TEXT], last[MK_WHERE_TEXT] = "";
  bool placed = false;
  int listed = 0, kind;
  for (int level = 1; level < TRACE_LEVELS && listed < TRACE_FRAMES && (kind = position(L, level, at)) >= 0; level++) {
    if (!kind) continue;
    if (!placed) { /* looking for the frame that the message names, or ours to name */
      placed = !lead || (strlen(at) == lead && !memcmp(at, message, lead));
      if (!placed) continue;
      if (!lead) lua_pushfstring(L, "%s: ", at), luaL_addvalue(&out);
      luaL_addstring(&out, message);
    } else if (strcmp(at, last) != 0) {
      luaL_addstring(&out, listed++ ? ", " : " (called from ");
      luaL_addstring(&out, at);
    }
    memcpy(last, at, sizeof last);
  }
  if (!placed) { /* nothing of the script runs: its parameters or its file are wrong */
    if (!lead && !mk_script_of(L)->code) lua_pushfstring(L, "%s: ", script_name(L)), luaL_addvalue(&out);
    luaL_addstring(&out, message);
  }
  if (listed) luaL_addstring(&out, ")");
  luaL_pushresult(&out);
  return 1;
}
