/* The program's commands: argv[0] is the command's own name. Each returns the exit code: 0 fine, 1 failed, 2 wrong usage. */
#ifndef MK_CLI_COMMANDS_H
#define MK_CLI_COMMANDS_H

int cmd_generate(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_emit(int argc, char **argv);
int cmd_compile(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_profile(int argc, char **argv);
int cmd_tune(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_compile_worker(int argc, char **argv); /* not for people: started by runtime/gpu/pool.c */

#endif
