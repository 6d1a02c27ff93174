/* moonkiln info: what this machine has and lacks. */
#include <stdio.h>

#include "runtime/cli/commands.h"
#include "runtime/cli/options.h"
#include "runtime/gpu/info.h"

int cmd_info(int argc, char **argv) {
  bool environment = false;
  const mk_option options[] = {
      {.name = "env",
       .kind = MK_OPT_FLAG,
       .target = &environment,
       .help = "list the environment switches instead, as a Markdown table"},
  };
  const mk_command_line line = {
      .usage = "moonkiln info [--env]",
      .summary = "Shows GPUs, driver, libraries and folders found, and for what is missing, how to get it.",
      .options = options,
      .count = 1,
  };
  int first, code;
  if (!mk_options_parse(&line, argc, argv, &first, &code)) return code;
  mk_text out = {0};
  if (environment)
    mk_info_print_environment(&out);
  else
    mk_info_print(&out);
  fputs(mk_text_str(&out), stdout);
  mk_text_free(&out);
  return 0;
}
