/* The kernel cache: whatever happens to its files, it gives the right bytes or none. */
#include "runtime/gpu/cache.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/file.h"
#include "runtime/gpu/cache_claim.h"
#include "runtime/gpu/cache_internal.h"
#include "tests/unit/temp_folder.h"

static const char key[] = "compiler 1\n-arch=sm_90a\nkernel\n\nsource text";
static char payload[3000];

static int make_all(void **state) {
  for (size_t i = 0; i < sizeof payload; i++) payload[i] = (char)(i * 131 + i / 7);
  return make_folder(state);
}

static bool store(mk_cache *c) {
  return mk_cache_store(c, key, sizeof key, &(mk_cache_entry){"a kernel", "registers=3", "a log", payload, sizeof payload});
}

/* 1: the right bytes; 0: none. Wrong ones fail the test. */
static int look_up(mk_cache *c) {
  mk_cache_entry e;
  if (!mk_cache_lookup(c, key, sizeof key, &e)) {
    assert_null(e.payload);
    return 0;
  }
  assert_int_equal(e.bytes, sizeof payload);
  assert_memory_equal(e.payload, payload, sizeof payload);
  assert_string_equal(e.label, "a kernel");
  assert_string_equal(e.meta, "registers=3");
  assert_string_equal(e.log, "a log");
  mk_cache_entry_free(&e);
  return 1;
}

/* Writes a file as it stands, with no care, and so quickly. */
static void put(const char *path, const char *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, bytes, f), bytes);
  assert_int_equal(fclose(f), 0);
}

typedef struct seen {
  int states[3];
  char path[PATH_MAX]; /* of the last good entry */
} seen;

static bool note(void *user, const mk_cache_item *item) {
  seen *s = user;
  s->states[item->state]++;
  if (item->state == MK_CACHE_GOOD) strcpy(s->path, item->path);
  return true;
}

static seen visit(mk_cache *c) {
  seen s = {0};
  mk_cache_visit(c, note, &s);
  return s;
}

static void keeps_and_gives_back(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_open(&c, folder);
  assert_true(c.writable);
  assert_int_equal(look_up(&c), 0);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  assert_int_equal(c.damaged, 0);
  struct stat info;
  assert_int_equal(stat(c.folder, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0700);
  mk_cache_entry e;
  assert_false(mk_cache_lookup(&c, key, sizeof key - 1, &e));
  assert_true(mk_cache_store(&c, "empty", 5, &(mk_cache_entry){"", "", "", NULL, 0}));
  assert_true(mk_cache_lookup(&c, "empty", 5, &e));
  assert_int_equal(e.bytes, 0);
  mk_cache_entry_free(&e);
  assert_int_equal(mk_cache_measure(&c).entries, 2);
}

static void damage_is_noticed_and_repaired(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  size_t bytes;
  char *good = mk_file_read(s.path, &bytes, &st);
  assert_non_null(good);
  char *bad = malloc(bytes + 1);
  int expected = 0;
  /* Every byte of the header and of the key, label and meta; every 11th of the payload. */
  for (size_t i = 0; i < bytes; i += i < 150 ? 1 : 11) {
    memcpy(bad, good, bytes);
    bad[i] ^= (char)(1 << (i % 8));
    put(s.path, bad, bytes);
    assert_int_equal(look_up(&c), 0);
    assert_int_equal(c.damaged, ++expected);
  }
  for (size_t n = 0; n < bytes; n += n < 150 ? 1 : 97) {
    put(s.path, good, n);
    assert_int_equal(look_up(&c), 0);
    assert_int_equal(c.damaged, ++expected);
  }
  memcpy(bad, good, bytes);
  bad[bytes] = 0;
  put(s.path, bad, bytes + 1);
  assert_int_equal(look_up(&c), 0);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 1);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 0);
  free(good);
  free(bad);
}

static void equal_hashes_are_told_apart(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_open(&c, folder);
  /* A good entry of another key under this key's name: what a collision of the hash would make. */
  assert_true(store(&c));
  seen mine = visit(&c);
  assert_int_equal(unlink(mine.path), 0);
  assert_true(mk_cache_store(&c, "other", 5, &(mk_cache_entry){"other", "", "", "x", 1}));
  seen other = visit(&c);
  size_t bytes;
  char *data = mk_file_read(other.path, &bytes, &st);
  assert_true(mk_file_publish(mine.path, data, bytes, &st));
  free(data);
  assert_int_equal(look_up(&c), 0);
  assert_int_equal(c.damaged, 0);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 1); /* but `verify` finds the misplaced file */
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
}

static void many_processes_at_once(void **state) {
  (void)state;
  enum { PROCESSES = 6, ROUNDS = 20 };
  mk_cache c;
  mk_cache_open(&c, folder);
  for (int i = 0; i < PROCESSES; i++) {
    if (fork()) continue;
    int bad = 0;
    for (int k = 0; k < ROUNDS; k++) {
      mk_cache_entry e;
      bad += !store(&c);
      bad += !mk_cache_lookup(&c, key, sizeof key, &e) || e.bytes != sizeof payload ||
             memcmp(e.payload, payload, sizeof payload) != 0;
      mk_cache_entry_free(&e);
    }
    _exit(bad || c.damaged ? 1 : 0);
  }
  for (int i = 0; i < PROCESSES; i++) {
    int status;
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  seen s = visit(&c);
  assert_int_equal(s.states[MK_CACHE_GOOD], 1);
  assert_int_equal(s.states[MK_CACHE_DAMAGED] + s.states[MK_CACHE_LEFTOVER], 0);
}

static void a_folder_that_cannot_be_used_is_no_failure(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_open(&c, "/proc/no/such/place");
  assert_false(c.writable);
  assert_false(store(&c));
  assert_int_equal(look_up(&c), 0);

  char path[PATH_MAX];
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  /* The entry's folder cannot be made, as on a full or read-only disk. */
  assert_int_equal(unlink(s.path), 0);
  *strrchr(s.path, '/') = 0;
  assert_int_equal(rmdir(s.path), 0);
  assert_true(mk_file_publish(s.path, "", 0, &st));
  assert_false(store(&c));
  assert_false(c.writable);
  assert_int_equal(look_up(&c), 0);

  /* Readable only: what is there is used. */
  assert_int_equal(unlink(s.path), 0);
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  chmod(folder, 0500);
  chmod(c.folder, 0500);
  mk_cache_open(&c, folder);
  assert_int_equal(look_up(&c), 1);
  chmod(folder, 0700);
  chmod(c.folder, 0700);

  snprintf(path, sizeof path, "%s/file", folder);
  assert_true(mk_file_publish(path, "", 0, &st));
  mk_cache_open(&c, path);
  assert_false(c.writable);
  assert_false(store(&c));
}

static void a_folder_that_others_can_write_is_refused(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  static const mode_t modes[] = {0702, 0720, 0777};
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    chmod(folder, modes[i]);
    mk_cache_open(&c, folder);
    assert_false(c.writable);
    assert_int_equal(look_up(&c), 0);
    assert_false(store(&c));
  }
  chmod(folder, 0755);
  mk_cache_open(&c, folder);
  assert_int_equal(look_up(&c), 1);
}

static void clearing_takes_only_what_is_ours(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  char path[4][PATH_MAX];
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  snprintf(path[0], PATH_MAX, "%.4000s.123-4567.tmp", s.path);
  snprintf(path[1], PATH_MAX, "%.4000s/notes", c.folder);
  snprintf(path[2], PATH_MAX, "%.4000s/kernel-0123abcd.cu", c.failed);
  snprintf(path[3], PATH_MAX, "%.4000s/thesis.cu", c.failed);
  assert_true(mk_dir_make(c.failed, 0700, &st));
  for (int i = 0; i < 4; i++) assert_true(mk_file_publish(path[i], "x", 1, &st));
  assert_int_equal(visit(&c).states[MK_CACHE_LEFTOVER], 1);
  mk_cache_size removed;
  assert_true(mk_cache_clear(&c, &removed, &st));
  assert_int_equal(removed.entries, 1);
  assert_false(mk_file_exists(s.path));
  assert_false(mk_file_exists(path[0]));
  assert_true(mk_file_exists(path[1]));
  assert_false(mk_file_exists(path[2]));
  assert_true(mk_file_exists(path[3]));
  assert_int_equal(look_up(&c), 0);
}

static bool store_number(mk_cache *c, int number, size_t bytes) {
  char name[32];
  snprintf(name, sizeof name, "kernel %d", number);
  return mk_cache_store(c, name, strlen(name), &(mk_cache_entry){name, "", "", payload, bytes});
}

static bool has_number(mk_cache *c, int number) {
  char name[32];
  mk_cache_entry e;
  snprintf(name, sizeof name, "kernel %d", number);
  bool found = mk_cache_lookup(c, name, strlen(name), &e);
  if (found) assert_string_equal(e.label, name);
  mk_cache_entry_free(&e);
  return found;
}

static void a_good_entry_stays_and_a_note_goes(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_entry e;
  mk_cache_open(&c, folder);
  assert_true(mk_cache_store(&c, key, sizeof key, &(mk_cache_entry){"a kernel", "failed", "why", NULL, 0}));
  assert_true(mk_cache_lookup(&c, key, sizeof key, &e));
  assert_string_equal(e.log, "why");
  mk_cache_entry_free(&e);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  assert_true(mk_cache_store(&c, key, sizeof key, &(mk_cache_entry){"late", "", "", "x", 1}));
  assert_int_equal(look_up(&c), 1);
}

/* Eight processes with the same work on an empty cache: every entry comes from one of them. */
static void each_entry_is_published_once(void **state) {
  (void)state;
  enum { PROCESSES = 8, ENTRIES = 25 };
  mk_cache c;
  int published = 0, status, go[2];
  mk_cache_open(&c, folder);
  assert_int_equal(pipe(go), 0);
  for (int i = 0; i < PROCESSES; i++) {
    if (fork()) continue;
    char byte;
    int mine = 0;
    close(go[1]);
    mk_cache_open(&c, folder);
    (void)!read(go[0], &byte, 1); /* all start when the pipe is closed */
    for (int k = 0; k < ENTRIES; k++) {
      const char name[] = {'k', (char)k};
      mk_cache_header h = {.bytes = {sizeof name, 1, 0, 0, 100}};
      char file[sizeof h + sizeof name + 1 + 100];
      memcpy(h.magic, "MKCUBIN2", 8);
      memset(file, 'x', sizeof file);
      memcpy(file + sizeof h, name, sizeof name);
      const mk_piece all[] = {{&h, sizeof h}, {file + sizeof h, sizeof file - sizeof h}};
      h.checksum = mk_hash64_pieces(all, 2);
      memcpy(file, &h, sizeof h);
      bool there;
      if (!mk_cache_publish(&c, file, sizeof file, &there)) _exit(255);
      mine += !there;
    }
    _exit(mine);
  }
  close(go[0]);
  close(go[1]);
  for (int i = 0; i < PROCESSES; i++) {
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= ENTRIES);
    published += WEXITSTATUS(status);
  }
  assert_int_equal(published, ENTRIES);
  seen s = visit(&c);
  assert_int_equal(s.states[MK_CACHE_GOOD], ENTRIES);
  assert_int_equal(s.states[MK_CACHE_DAMAGED] + s.states[MK_CACHE_LEFTOVER], 0);
}

/* Killed at 200 random moments: what is found afterwards is right, and what was half done is seen as that. */
static void killed_while_filling(void **state) {
  (void)state;
  enum { KILLS = 200, ENTRIES = 40 };
  mk_cache c;
  unsigned random = 12345;
  int killed = 0;
  for (int i = 0; i < KILLS; i++) {
    pid_t pid = fork();
    if (!pid) {
      mk_cache_open(&c, folder);
      for (int k = 0;; k++) { /* some are taken out again, so that there is always something to write */
        if (!store_number(&c, k % ENTRIES, sizeof payload)) _exit(1);
        if (k % 7 == 6) {
          mk_cache_size removed;
          mk_status st = {0};
          mk_cache_trim(&c, 20000, &removed, &st);
        }
      }
    }
    random = random * 1664525u + 1013904223u;
    usleep(random % 8000);
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    killed += WIFSIGNALED(status);
  }
  assert_int_equal(killed, KILLS);
  mk_cache_open(&c, folder);
  seen s = visit(&c);
  assert_int_equal(s.states[MK_CACHE_DAMAGED], 0);
  for (int k = 0; k < ENTRIES; k++) assert_true(has_number(&c, k) || store_number(&c, k, sizeof payload));
  for (int k = 0; k < ENTRIES; k++) assert_true(has_number(&c, k));
  assert_int_equal(c.damaged, 0);
}

/* Makes entry `number` look as if last used so long ago. */
static void set_idle(mk_cache *c, int number, int seconds) {
  char name[32], hex[MK_HASH_HEX], path[PATH_MAX];
  snprintf(name, sizeof name, "kernel %d", number);
  mk_hash_hex(name, strlen(name), hex);
  assert_true(snprintf(path, sizeof path, "%s/%.2s/%s", c->folder, hex, hex) < PATH_MAX);
  struct timeval then[2] = {{time(NULL) - seconds, 0}, {time(NULL) - seconds, 0}};
  assert_int_equal(utimes(path, then), 0);
}

static void trimming_takes_what_was_not_used_for_longest(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  mk_cache_size removed;
  char failed[PATH_MAX], young[PATH_MAX], old[PATH_MAX];
  mk_cache_open(&c, folder);
  for (int k = 0; k < 10; k++) {
    assert_true(store_number(&c, k, sizeof payload));
    set_idle(&c, k, 100000 - 5000 * k);
  }
  assert_true(has_number(&c, 0)); /* the oldest becomes the youngest */
  int64_t whole = mk_cache_measure(&c).bytes;
  assert_true(mk_cache_trim(&c, whole, &removed, &st));
  assert_int_equal(removed.entries, 0);
  assert_true(mk_cache_trim(&c, whole * 3 / 10, &removed, &st));
  assert_int_equal(removed.entries, 7);
  assert_true(has_number(&c, 0) && has_number(&c, 8) && has_number(&c, 9));
  assert_false(has_number(&c, 7));

  /* Failed sources count, too; of temporary files only old ones go, whatever the limit. */
  assert_true(mk_dir_make(c.failed, 0700, &st));
  snprintf(failed, sizeof failed, "%.4000s/kernel-0123abcd.cu", c.failed);
  snprintf(young, sizeof young, "%.4000s.12-34.tmp", visit(&c).path);
  snprintf(old, sizeof old, "%.4000s.56-78.tmp", visit(&c).path);
  const char *const files[] = {failed, young, old};
  for (int i = 0; i < 3; i++) assert_true(mk_file_publish(files[i], "x", 1, &st));
  struct timeval then[2] = {{1000000, 0}, {1000000, 0}};
  assert_int_equal(utimes(old, then) | utimes(failed, then), 0);
  assert_true(mk_cache_trim(&c, INT64_MAX, &removed, &st));
  assert_false(mk_file_exists(old));
  assert_true(mk_file_exists(failed) && mk_file_exists(young));
  assert_true(mk_cache_trim(&c, 0, &removed, &st));
  assert_int_equal(removed.entries, 3);
  assert_false(mk_file_exists(failed));
  assert_true(mk_file_exists(young));
}

static void the_system_cache_is_second(void **state) {
  (void)state;
  mk_cache c, system;
  mk_status st = {0};
  char shared[PATH_MAX], own[PATH_MAX];
  snprintf(shared, sizeof shared, "%s/system", folder);
  snprintf(own, sizeof own, "%s/own", folder);
  assert_true(mk_dir_make(shared, 0755, &st));
  chmod(shared, 0755);
  mode_t before = umask(077);
  mk_cache_open(&system, shared);
  assert_true(store(&system) && store_number(&system, 1, 10));
  umask(before);

  /* What an open folder holds can be read by others, whatever the umask. */
  struct stat info;
  seen s = visit(&system);
  assert_int_equal(stat(s.path, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0644);
  assert_int_equal(stat(system.folder, &info), 0);
  assert_int_equal(info.st_mode & 0777, 0755);

  mk_cache_open(&c, own);
  mk_cache_open_shared(&c, "/no/such/folder");
  assert_string_equal(c.shared, "");
  mk_cache_open_shared(&c, shared);
  assert_int_equal(look_up(&c), 1);
  assert_true(store_number(&c, 2, 10)); /* is written to the first alone */
  assert_int_equal(mk_cache_measure(&c).entries, 1);
  assert_int_equal(mk_cache_measure(&system).entries, 2);
  assert_int_equal(visit(&c).states[MK_CACHE_GOOD], 3);
  mk_cache_size removed;
  assert_true(mk_cache_clear(&c, &removed, &st));
  assert_int_equal(look_up(&c), 1);
  assert_false(has_number(&c, 2));

  /* One that others can write is not looked into, and neither is one that is the first already. */
  chmod(shared, 0775);
  mk_cache_open(&c, own);
  mk_cache_open_shared(&c, shared);
  assert_int_equal(look_up(&c), 0);
  mk_cache_open_shared(&c, own);
  assert_string_equal(c.shared, "");
}

static void files_that_others_can_write_are_not_used(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  seen s = visit(&c);
  chmod(s.path, 0666);
  assert_int_equal(look_up(&c), 0);
  assert_int_equal(visit(&c).states[MK_CACHE_DAMAGED], 1);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  if (geteuid()) return; /* only root can give a file away */
  assert_int_equal(chown(s.path, 12345, 12345), 0);
  assert_int_equal(look_up(&c), 0);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  assert_int_equal(chown(folder, 12345, 12345), 0);
  mk_cache_open(&c, folder);
  assert_string_equal(c.folder, "");
  assert_false(c.writable);
}

static void a_link_is_followed_and_its_target_judged(void **state) {
  (void)state;
  mk_cache c;
  mk_status st = {0};
  char target[PATH_MAX], link[PATH_MAX];
  snprintf(target, sizeof target, "%s/target", folder);
  snprintf(link, sizeof link, "%s/link", folder);
  assert_int_equal(symlink(target, link), 0);
  mk_cache_open(&c, link); /* to nothing */
  assert_false(c.writable);
  assert_true(mk_dir_make(target, 0700, &st));
  mk_cache_open(&c, link);
  assert_true(store(&c));
  assert_int_equal(look_up(&c), 1);
  chmod(target, 0777);
  mk_cache_open(&c, link);
  assert_false(c.writable);
  assert_int_equal(look_up(&c), 0);
}

static void packs_carry_entries(void **state) {
  (void)state;
  mk_cache c, to;
  mk_status st = {0};
  mk_cache_size written, added, present;
  char pack[PATH_MAX], other[PATH_MAX], again[PATH_MAX];
  snprintf(pack, sizeof pack, "%s/pack", folder);
  snprintf(again, sizeof again, "%s/again", folder);
  snprintf(other, sizeof other, "%s/other", folder);
  mk_cache_open(&c, folder);
  assert_true(store(&c));
  for (int k = 0; k < 5; k++) assert_true(store_number(&c, k, 100));
  assert_true(mk_cache_store(&c, "f", 1, &(mk_cache_entry){"fails", "", "", NULL, 0})); /* notes stay at home */
  assert_true(mk_cache_export(&c, pack, NULL, &written, &st));
  assert_int_equal(written.entries, 6);
  mk_cache_open(&to, other);
  assert_true(mk_cache_import(&to, pack, &added, &present, &st));
  assert_int_equal(added.entries, 6);
  assert_int_equal(present.entries, 0);
  assert_int_equal(look_up(&to), 1);
  assert_true(has_number(&to, 4));
  assert_true(mk_cache_import(&to, pack, &added, &present, &st));
  assert_int_equal(added.entries, 0);
  assert_int_equal(present.entries, 6);
  /* The same entries make the same file, wherever they come from: also from two folders that both have them. */
  size_t n, m;
  mk_cache_open_shared(&to, folder);
  assert_true(mk_cache_export(&to, again, NULL, &written, &st));
  char *first = mk_file_read(pack, &n, &st), *second = mk_file_read(again, &m, &st);
  assert_int_equal(n, m);
  assert_memory_equal(first, second, n);
  free(first);
  free(second);
  assert_true(mk_cache_export(&c, again, "kernel 3", &written, &st));
  assert_int_equal(written.entries, 1);
  assert_true(mk_cache_export(&c, again, "no such", &written, &st));
  assert_true(mk_cache_import(&to, again, &added, &present, &st));
  assert_int_equal(added.entries + present.entries, 0);
  assert_false(mk_cache_export(&c, "/no/such/folder/pack", NULL, &written, &st));
}

static void damaged_packs_change_nothing(void **state) {
  (void)state;
  mk_cache c, to;
  mk_status st = {0};
  mk_cache_size written, added, present;
  char pack[PATH_MAX], other[PATH_MAX];
  snprintf(pack, sizeof pack, "%s/pack", folder);
  snprintf(other, sizeof other, "%s/other", folder);
  mk_cache_open(&c, folder);
  for (int k = 0; k < 3; k++) assert_true(store_number(&c, k, 200));
  assert_true(mk_cache_export(&c, pack, NULL, &written, &st));
  mk_cache_open(&to, other);
  size_t bytes;
  char *good = mk_file_read(pack, &bytes, &st), *bad = malloc(bytes + 1);
  for (size_t i = 0; i <= bytes; i += i < 120 ? 1 : 5) {
    for (int cut = 0; cut < 2; cut++) {
      memcpy(bad, good, bytes);
      bad[bytes] = 0;
      if (!cut && i < bytes) bad[i] ^= (char)(1 << (i % 8));
      if (cut && i == bytes) continue;
      size_t n = cut ? i : i < bytes ? bytes : bytes + 1; /* the last round: a byte too many */
      st = (mk_status){0};
      put(pack, bad, n);
      assert_false(mk_cache_import(&to, pack, &added, &present, &st));
      assert_int_equal(st.code, MK_EINPUT);
      assert_non_null(strstr(st.message, "nothing was imported"));
    }
  }
  assert_int_equal(mk_cache_measure(&to).entries, 0);
  st = (mk_status){0};
  assert_false(mk_cache_import(&to, "/no/such/pack", &added, &present, &st));
  assert_non_null(strstr(st.message, "/no/such/pack"));
  st = (mk_status){0};
  assert_true(mk_file_publish(pack, good, bytes, &st));
  mk_cache_open(&to, "/proc/no/such/place");
  assert_false(mk_cache_import(&to, pack, &added, &present, &st));
  assert_non_null(strstr(st.message, "could not be filled"));
  free(good);
  free(bad);
}

static void claims_end_with_their_process(void **state) {
  (void)state;
  mk_cache c;
  mk_cache_claims mine, other;
  mk_cache_open(&c, folder);
  mk_cache_claims_open(&mine, &c);
  mk_cache_claims_open(&other, &c);
  assert_true(mk_cache_claim(&mine, "a", 1));
  assert_true(mk_cache_claim(&mine, "a", 1));
  assert_false(mk_cache_claim(&other, "a", 1));
  assert_true(mk_cache_claim(&other, "b", 1));
  assert_false(mk_cache_claim(&mine, "b", 1));
  mk_cache_unclaim(&mine, "a", 1);
  assert_true(mk_cache_claim(&other, "a", 1));
  mk_cache_claims_close(&other);
  assert_true(mk_cache_claim(&mine, "a", 1) && mk_cache_claim(&mine, "b", 1));
  mk_cache_claims_close(&mine);
  int ready[2];
  char byte;
  assert_int_equal(pipe(ready), 0);
  pid_t pid = fork();
  if (!pid) {
    mk_cache_claims_open(&mine, &c);
    if (!mk_cache_claim(&mine, "a", 1) || write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  assert_int_equal(read(ready[0], &byte, 1), 1);
  mk_cache_claims_open(&other, &c);
  assert_false(mk_cache_claim(&other, "a", 1));
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  assert_true(mk_cache_claim(&other, "a", 1));
  mk_cache_claims_close(&other);
  close(ready[0]);
  close(ready[1]);
  /* Where nothing can be written there is nothing to share. */
  mk_cache_open(&c, "/proc/no/such/place");
  mk_cache_claims_open(&mine, &c);
  mk_cache_claims_open(&other, &c);
  assert_true(mk_cache_claim(&mine, "a", 1) && mk_cache_claim(&other, "a", 1));
  mk_cache_claims_close(&mine);
}

int main(void) {
  setenv("MOONKILN_LOG", "error", 1); /* hundreds of entries are damaged here */
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_all, drop_folder)
  const struct CMUnitTest tests[] = {
      TEST(keeps_and_gives_back),
      TEST(damage_is_noticed_and_repaired),
      TEST(equal_hashes_are_told_apart),
      TEST(many_processes_at_once),
      TEST(a_folder_that_cannot_be_used_is_no_failure),
      TEST(a_folder_that_others_can_write_is_refused),
      TEST(clearing_takes_only_what_is_ours),
      TEST(a_good_entry_stays_and_a_note_goes),
      TEST(each_entry_is_published_once),
      TEST(killed_while_filling),
      TEST(trimming_takes_what_was_not_used_for_longest),
      TEST(the_system_cache_is_second),
      TEST(files_that_others_can_write_are_not_used),
      TEST(a_link_is_followed_and_its_target_judged),
      TEST(packs_carry_entries),
      TEST(damaged_packs_change_nothing),
      TEST(claims_end_with_their_process),
  };
  cmocka_set_message_output(CM_OUTPUT_TAP);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
