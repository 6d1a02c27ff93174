#include "runtime/cli/dump.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/file.h"
#include "runtime/gpu/compiler.h"

static bool write_file(const char *folder, const char *name, const char *text, mk_status *st) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/%s", folder, name);
  if (n >= (int)sizeof path) return mk_fail(st, MK_EINPUT, "%.200s...: the path is too long", path), false;
  return mk_file_publish(path, text, strlen(text), st);
}

/* Ends the text's use. */
static bool write_text(const char *folder, const char *name, mk_text *text, mk_status *st) {
  if (mk_text_failures()) mk_fail(st, MK_ENOMEM, "out of host memory");
  bool ok = !mk_failed(st) && write_file(folder, name, mk_text_str(text), st);
  mk_text_free(text);
  return ok;
}

/* What the kernels are compiled with. The options say the compiler's version's; where there is none, the newest's. */
static void describe_compilation(const mk_dump *d, mk_text *out, mk_status *st) {
  mk_compiler compiler = {.nvrtc.major = 13};
  mk_status missing = {0};
  char arch[16];
  if (!mk_arch_name(d->plan->arch, arch, st)) return;
  mk_text id = {0};
  if (mk_compiler_open(&compiler, 0, NULL, &missing)) mk_compiler_id(&compiler, &id);
  mk_text_addf(out, "# The kernels here are compiled by %s, each file alone, with no include path and these options:\n",
               id.len ? mk_text_str(&id) : "NVRTC (not found here)");
  mk_text_free(&id);
  mk_compile_options(&compiler, &(mk_compile_job){.arch = arch}, out);
  mk_text_addf(out,
               "\n# Edit a NAME.cu, then, with this folder as DIR:\n"
               "moonkiln emit %s --load DIR --stage sass-report\n"
               "moonkiln bench %s --load DIR\n"
               "moonkiln run %s --load DIR\n"
               "# The file's name, the line \"#define KERNEL NAME\" and struct Params must stay.\n",
               d->command, d->command, d->command);
}

static bool write_all(const mk_dump *d, const char *folder, mk_status *st) {
  mk_text ir = {0}, groups = {0}, plan = {0}, compile = {0};
  mk_graph_print(d->graph, &ir);
  mk_groups_print(d->graph, d->options, &groups, st);
  mk_plan_print(d->plan, &plan);
  describe_compilation(d, &compile, st);
  bool ok = write_text(folder, "ir.txt", &ir, st);
  ok = write_text(folder, "groups.txt", &groups, st) && ok;
  ok = write_text(folder, "plan.txt", &plan, st) && ok;
  ok = write_text(folder, "compile.txt", &compile, st) && ok;
  for (int k = 0; ok && k < d->plan->nkernels; k++) {
    char name[256];
    if (!d->wanted[k]) continue;
    snprintf(name, sizeof name, "%s.cu", d->plan->kernels[k].name);
    ok = write_file(folder, name, d->plan->kernels[k].source, st);
  }
  return ok;
}

static void remove_folder(const char *folder) {
  char path[PATH_MAX + 256];
  DIR *dir = opendir(folder);
  for (struct dirent *d; dir && (d = readdir(dir));) {
    if (d->d_type == DT_DIR) continue;
    snprintf(path, sizeof path, "%s/%s", folder, d->d_name);
    unlink(path);
  }
  if (dir) closedir(dir);
  rmdir(folder);
}

bool mk_dump_write(const mk_dump *d, const char *folder, mk_status *st) {
  char temporary[PATH_MAX], target[PATH_MAX];
  size_t length = strlen(folder);
  while (length > 1 && folder[length - 1] == '/') length--;
  int n = snprintf(target, sizeof target, "%.*s", (int)length, folder);
  if (!length || n >= (int)sizeof target - 8) return mk_fail(st, MK_EINPUT, "--dump: give a folder's name"), false;
  struct stat info;
  if (!stat(target, &info) && rmdir(target))
    return mk_fail(st, MK_EINPUT, "--dump %s: that is there already; give a new folder", folder), false;
  snprintf(temporary, sizeof temporary, "%.*s.XXXXXX", PATH_MAX - 8, target);
  if (!mkdtemp(temporary)) {
    mk_fail(st, errno == ENOENT ? MK_EINPUT : MK_EIO, "--dump %s: the folder cannot be made: %s", folder, strerror(errno));
    return false;
  }
  mode_t mask = umask(0);
  umask(mask);
  bool ok = write_all(d, temporary, st);
  if (ok && (chmod(temporary, 0777 & ~mask) || rename(temporary, target))) {
    mk_fail(st, MK_EIO, "--dump %s: %s", folder, strerror(errno));
    ok = false;
  }
  if (!ok) remove_folder(temporary);
  return ok;
}
