/* Between sidecar.c (problems, choices), sidecar_folder.c (files) and sidecar_lua.c (tables). */
#ifndef MK_CODEGEN_SIDECAR_INTERNAL_H
#define MK_CODEGEN_SIDECAR_INTERNAL_H

#include "codegen/lua_script.h"
#include "codegen/sidecar.h"

enum { MK_MEMO = 256, MK_MAX_VALUES = 16, MK_MAX_USES = 8 };

typedef struct mk_sidecar {
  const char *name, *implements;
  const char *folder;
  const char *shown; /* see mk_choice */
  bool own;          /* the folder is the user's */
  int arch_min, arch_max;
  bool arch_specific, row_epilogue, prologue, fetches;
  int nuses;
  const char *uses[MK_MAX_USES];
  int ntunables;
  struct { /* sorted by name */
    const char *name;
    int n;
    int64_t values[MK_MAX_VALUES];
  } tunables[MK_MAX_TUNABLES];
  int nfields;
  mk_field *fields;
  bool simt;        /* `flop` is done by the ordinary units */
  int table;        /* registry reference of the Lua table */
  const char *code; /* NULL: not read yet */
} mk_sidecar;

typedef struct mk_sidecar_file {
  const char *path, *text;
} mk_sidecar_file;

typedef struct mk_sidecar_found { /* choices for one problem */
  const char *key;
  int n, cap;
  mk_choice *items;
  int nrest, rest_cap;
  mk_choice *rest; /* that were dearer than those */
  struct mk_sidecar_found *next;
} mk_sidecar_found;

struct mk_sidecars {
  mk_arena arena;
  const char *folder; /* the built-in one */
  const mk_trial *trial;
  const char *asking; /* the field that is being read or called, for messages */
  mk_target target;
  mk_script script; /* the sandbox's budgets */
  int n, cap;
  mk_sidecar *items;
  int nlone, lone_cap;
  const char **lone; /* .lua files of the user's without a .cu, when that is news */
  int nfiles, files_cap;
  mk_sidecar_file *files;
  mk_sidecar_found *memo[MK_MEMO];
};

/* Reads all folders' sidecars into s->items, by name. */
bool mk_sidecars_find(mk_sidecars *s, mk_status *st);
/* The template with the files it uses, as one text; owned by s. NULL with the status set if one cannot be read. */
const char *mk_sidecar_code(mk_sidecars *s, const mk_sidecar *one, mk_status *st);
/* Runs f(arguments as light userdata) in the sandbox; `shown` is what a failure names. */
bool mk_sidecar_call(mk_sidecars *s, const char *shown, lua_CFunction f, void **args, int nargs, mk_status *st);
/* Reads the table on the top of the stack. Raises errors. */
void mk_sidecar_read(mk_sidecars *s, mk_sidecar *one, lua_State *L);
/* (sidecars, sidecar, problem, found) as light userdata: adds all valid choices, not settled. Raises errors. */
int mk_sidecar_enumerate(lua_State *L);
/* (sidecars, problem, choice) as light userdata: settles it, but for its code. Raises errors. */
int mk_sidecar_settle(lua_State *L);

#endif
