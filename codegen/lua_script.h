/* What the files of the Lua front end share: one running script and helpers for its C functions. */
#ifndef MK_CODEGEN_LUA_SCRIPT_H
#define MK_CODEGEN_LUA_SCRIPT_H

#include <lauxlib.h>
#include <lua.h>

#include "codegen/graph.h"
#include "codegen/infer.h"

enum { MK_WHERE_TEXT = 96, MK_ENTRY_TEXT = 64 };

typedef struct mk_script { /* reached from C functions by mk_script_of */
  lua_State *L;
  mk_graph *g;
  const mk_source *weights; /* may be NULL */
  const char *path;
  const char *params_json;
  const char *folder;        /* of the file that is read now, ending in '/' or empty; NULL: none is */
  const char *parts;         /* the same: where include looks second, or NULL */
  char entry[MK_ENTRY_TEXT]; /* what output and update belong to now */
  mk_code code;              /* of the error on its way out; MK_OK: the user's */
  /* budgets, see lua_sandbox.c */
  size_t used, max_memory;
  int64_t instructions, max_instructions;
  int hook_step;
  bool over_memory, stopped;
} mk_script;

typedef struct mk_tensor_ref { /* the userdata "tensor" */
  int id;
} mk_tensor_ref;

mk_script *mk_script_of(lua_State *L);
/* "file.lua:42" of the innermost Lua function that runs; buf has MK_WHERE_TEXT bytes; returns buf. */
const char *mk_script_where(lua_State *L, char *buf);

/* ---- lua_sandbox.c */
lua_State *mk_sandbox_open(mk_script *s);                   /* NULL: out of memory */
void mk_sandbox_libs(lua_State *L);                         /* the permitted part of the standard library; raises errors */
int mk_sandbox_handler(lua_State *L);                       /* message handler: puts the position first and the callers last */
void mk_sandbox_charge(mk_script *s, int64_t instructions); /* for work that the instruction count does not see */

/* ---- lua_base.c: what replaces base functions that would be unbounded or not repeatable */
void mk_lua_base(lua_State *L);

/* ---- lua_include.c */
void mk_lua_include(lua_State *L); /* registers include(name) */
/* Pushes the chunk of the file at path, named name in messages; raises errors. Text only: bytecode could break the sandbox. */
void mk_lua_chunk(lua_State *L, const char *path, const char *name);
bool mk_lua_included(lua_State *L, const char *path); /* so far */

/* ---- lua_tensor.c */
void mk_lua_tensor(lua_State *L); /* registers the userdata type */
void mk_lua_push(lua_State *L, int id);
int mk_lua_node(lua_State *L, int index); /* a tensor, or a number made a constant */
int mk_lua_tensor_id(lua_State *L, int index);
/* mk_build at the current line; raises the error. */
int mk_lua_build(lua_State *L, mk_op op, const int *args, int nargs, mk_dtype dtype, const int64_t *dims, int rank,
                 const mk_attr *attr, const char *name);

/* ---- lua_args.c: reading arguments; all raise errors that name `what` */
const mk_node *mk_lua_node_of(lua_State *L, int id);
/* A list of whole numbers; returns how many (at most MK_MAX_RANK). least: the smallest allowed. */
int mk_lua_dims(lua_State *L, int index, const char *what, int64_t least, int64_t out[MK_MAX_RANK]);
int64_t mk_lua_whole(lua_State *L, int index, const char *what, int64_t least, int64_t most);
int mk_lua_axis(lua_State *L, int index, const char *what, int rank); /* 0-based */
mk_dtype mk_lua_dtype(lua_State *L, int index, const char *what);
float mk_lua_float(lua_State *L, int index, const char *what); /* no NaN, and finite numbers stay finite in f32 */
bool mk_lua_flag(lua_State *L, int index, const char *field);  /* an optional boolean field */
const char *mk_lua_name(lua_State *L, int index, const char *what);
void mk_lua_fields(lua_State *L, int index, const char *what, const char *allowed); /* refuses others; allowed: " a b c " */

/* ---- lua_graph.c, lua_layers.c, lua_params.c */
void mk_lua_graph(lua_State *L);
void mk_lua_layers(lua_State *L);
void mk_lua_params(lua_State *L, const char *json); /* pushes the table */

#endif
