/* Between sidecar.c (folder, memo) and sidecar_lua.c (tables). */
#ifndef MK_CODEGEN_SIDECAR_INTERNAL_H
#define MK_CODEGEN_SIDECAR_INTERNAL_H

#include "codegen/lua_script.h"
#include "codegen/sidecar.h"

enum { MK_MEMO = 256, MK_MAX_TUNABLES = 12, MK_MAX_VALUES = 16, MK_MAX_USES = 8 };

typedef struct mk_sidecar {
  const char *name, *implements;
  int arch_min, arch_max;
  bool arch_specific, row_epilogue;
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
  int table; /* registry reference of the Lua table */
  const char *code;
} mk_sidecar;

typedef struct mk_sidecar_file {
  const char *name, *text;
} mk_sidecar_file;

typedef struct mk_sidecar_found { /* choices for one problem */
  const char *key;
  int n, cap;
  mk_choice *items;
  struct mk_sidecar_found *next;
} mk_sidecar_found;

struct mk_sidecars {
  mk_arena arena;
  const char *folder;
  mk_target target;
  mk_script script; /* the sandbox's budgets */
  int n, cap;
  mk_sidecar *items;
  int nfiles, files_cap;
  mk_sidecar_file *files;
  mk_sidecar_found *memo[MK_MEMO];
};

/* Reads the table on the top of the stack. Raises errors. */
void mk_sidecar_read(mk_sidecars *s, mk_sidecar *one, lua_State *L);
/* (sidecars, sidecar, problem, found) as light userdata: adds all valid choices. Raises errors. */
int mk_sidecar_enumerate(lua_State *L);

#endif
