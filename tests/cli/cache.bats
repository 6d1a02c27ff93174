#!/usr/bin/env bats
# moonkiln cache: the folder of compiled kernels seen from outside, and what programs do whatever state it is in.
# shellcheck disable=SC2154,SC2030,SC2031 # here, out: helper.bash; each test has its own environment

setup() {
  load helper
  common
  entry=$MOONKILN_CACHE/cubin/01/0123456789abcdef0123456789abcdef
}

teardown() { umount "$here/small" 2>/dev/null || true; }

# y = gelu(x W): two kernels and a library call, or three kernels.
graph() {
  cat >"$here/graph.lua" <<'END'
local x = input { name = "x", shape = { 64, 128 } }
output("y", matmul(x:cast "bf16", weight("w", { 256, 128 }):cast "bf16"):gelu())
END
}

# compiled [OPTION]...: fills the cache with the graph's kernels.
compiled() {
  graph
  "$MOONKILN" compile "$here/graph.lua" "$@"
}

# One run of the graph on the made-up GPU.
run_graph() {
  "$MOONKILN" run "$here/graph.lua" --backend cuda --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/y.safetensors"
}

need_graph() {
  need_nvrtc
  graph
  tensors write "$here/w.safetensors" 1 w=256x128
  tensors write "$here/x.safetensors" 2 x=64x128
}

plant() {
  umask 077
  mkdir -p "$MOONKILN_CACHE/cubin/01"
  echo rubbish >"$1"
}

@test "an empty cache" {
  run "$MOONKILN" cache list
  [ "$status" -eq 0 ]
  [[ $output == "0 kernels, 0 bytes in $MOONKILN_CACHE/cubin" ]]
  [ "$(stat -c %a "$MOONKILN_CACHE")" = 700 ]
  run "$MOONKILN" cache verify
  [ "$status" -eq 0 ]
  run "$MOONKILN" cache clear
  [ "$status" -eq 0 ]
}

@test "verify finds a damaged entry, and removes it when asked" {
  plant "$entry"
  run "$MOONKILN" cache verify
  [ "$status" -eq 1 ]
  [[ $output == *"damaged: $entry"* ]]
  [ -e "$entry" ]
  run "$MOONKILN" cache verify --remove
  [ "$status" -eq 0 ]
  [ ! -e "$entry" ]
}

@test "verify leaves a young temporary file and takes an old one" {
  plant "$entry.12-34.tmp"
  run "$MOONKILN" cache verify --remove
  [ -e "$entry.12-34.tmp" ]
  touch -d '2 hours ago' "$entry.12-34.tmp"
  run "$MOONKILN" cache verify --remove
  [ "$status" -eq 0 ]
  [[ $output == *"left over: "* ]]
  [ ! -e "$entry.12-34.tmp" ]
}

@test "clear leaves what is not ours" {
  plant "$entry"
  plant "$MOONKILN_CACHE/cubin/01/diary"
  plant "$MOONKILN_CACHE/diary"
  run "$MOONKILN" cache clear
  [ "$status" -eq 0 ]
  [[ $output == "removed 1 kernels"* ]]
  [ ! -e "$entry" ]
  [ -e "$MOONKILN_CACHE/cubin/01/diary" ] && [ -e "$MOONKILN_CACHE/diary" ]
}

@test "a folder that others can write is refused" {
  plant "$entry"
  chmod 777 "$MOONKILN_CACHE"
  run "$MOONKILN" cache list
  [ "$status" -eq 1 ]
  [[ $output == *"can be written by others"* ]]
}

@test "a folder that cannot be made" {
  MOONKILN_CACHE=/proc/nowhere run "$MOONKILN" cache list
  [ "$status" -eq 1 ]
  [[ $output == *"/proc/nowhere"* ]]
}

@test "what is in an entry" {
  need_nvrtc
  compiled --arch sm_80,sm_90a
  run "$MOONKILN" cache list --kernel row_copy
  [ "$status" -eq 0 ]
  [[ $output == *"sm_80 row_copy_"*"registers="*"spill=0"* ]]
  [[ $output == *"sm_90a row_copy_"* ]]
  [[ $output != *matmul* ]]
  key=$("$MOONKILN" cache list --kernel "sm_90a row_copy" | awk 'NR == 1 { print $3 }')
  run "$MOONKILN" cache show "$key" --cubin "$here/k.cubin"
  [ "$status" -eq 0 ]
  [[ $output == "sm_90a row_copy_"* ]]
  [[ $output == *"nvrtc "* && $output == *"-arch=sm_90a"* && $output == *"ptxas info"* && $output == *"__global__"* ]]
  [[ $(head -c 4 "$here/k.cubin") == $'\177ELF' ]]
  refused "$MOONKILN" cache show 0123456789 -- "no kernel"
  refused "$MOONKILN" cache show 012 -- "no key"
  refused "$MOONKILN" cache show XYZXYZ -- "no key"
}

@test "trim: the size limit" {
  need_nvrtc
  compiled --arch sm_80,sm_86,sm_90a --all
  total=$("$MOONKILN" cache list | tail -n 1 | cut -d ' ' -f 1)
  ((total > 10))
  run "$MOONKILN" cache trim
  [[ $output == "removed 0 kernels"* ]]
  old=$("$MOONKILN" cache list --kernel sm_86 | awk '$1 == "sm_86" { print $3 }')
  for key in $old; do touch -d '3 days ago' "$MOONKILN_CACHE"/cubin/*/"$key"*; done
  young=$("$MOONKILN" cache list --kernel sm_90a | tail -n 1)
  run "$MOONKILN" cache trim --limit 300K
  [ "$status" -eq 0 ]
  (($(du -cb "$MOONKILN_CACHE"/cubin/*/* | tail -n 1 | cut -f 1) <= 300 * 1024))
  [[ $("$MOONKILN" cache list --kernel sm_86 | tail -n 1) == "0 kernels"* || $young == "0 kernels"* ]]
  run "$MOONKILN" cache trim --limit much
  [ "$status" -eq 2 ]

  # And by itself, when something was added.
  "$MOONKILN" cache clear
  MOONKILN_CACHE_LIMIT=200K MOONKILN_LOG=info run "$MOONKILN" compile "$here/graph.lua" --all
  [ "$status" -eq 0 ]
  [[ $output == *"MOONKILN_CACHE_LIMIT"* ]]
  (($(du -cb "$MOONKILN_CACHE"/cubin/*/* | tail -n 1 | cut -f 1) <= 200 * 1024))
  MOONKILN_CACHE_LIMIT=big run "$MOONKILN" compile "$here/graph.lua"
  [ "$status" -eq 2 ]
  [[ $output == *MOONKILN_CACHE_LIMIT* ]]
}

@test "a packed file, to another folder" {
  need_nvrtc
  compiled
  kernels=$("$MOONKILN" cache list | tail -n 1 | cut -d ' ' -f 1)
  run "$MOONKILN" cache export "$here/pack"
  [ "$status" -eq 0 ]
  [[ $output == "wrote $kernels kernels"* ]]
  export MOONKILN_CACHE=$here/other
  run "$MOONKILN" cache import "$here/pack"
  [ "$status" -eq 0 ]
  [[ $output == "added $kernels kernels"*"; 0 were there already" ]]
  [ "$(stat -c %a "$MOONKILN_CACHE")" = 700 ]
  run "$MOONKILN" compile "$here/graph.lua"
  [[ $output == *"$kernels from the cache, 0 compiled"* ]]
  run "$MOONKILN" cache import "$here/pack"
  [[ $output == "added 0 kernels"*"; $kernels were there already" ]]

  # Damage is refused before anything is taken.
  "$MOONKILN" cache clear
  cp "$here/pack" "$here/bad"
  printf x | dd of="$here/bad" bs=1 seek=5000 conv=notrunc status=none
  refused "$MOONKILN" cache import "$here/bad" -- bad damaged "nothing was imported"
  head -c 20000 "$here/pack" >"$here/short"
  refused "$MOONKILN" cache import "$here/short" -- short "cut off"
  refused "$MOONKILN" cache import README.md -- "no packed cache"
  refused "$MOONKILN" cache import "$here/absent" -- absent "No such file"
  refused "$MOONKILN" cache export "$here/no/folder/pack" -- "make the folder first"
  [[ $("$MOONKILN" cache list) == "0 kernels"* ]]
}

@test "the system's cache is looked into second, and never written" {
  need_nvrtc
  export MOONKILN_SYSTEM_CACHE=$here/system
  mkdir -m 755 "$here/system"
  (umask 077 && MOONKILN_CACHE=$here/system compiled)
  kernels=$(find "$here/system/cubin" -mindepth 2 -type f | wc -l)
  [ -z "$(find "$here/system/cubin" -mindepth 2 -type f ! -perm -044)" ]
  run "$MOONKILN" compile "$here/graph.lua"
  [[ $output == *"$kernels from the cache, 0 compiled"* ]]
  run "$MOONKILN" compile "$here/graph.lua" --arch sm_80
  [[ $output == *" 0 from the cache, "* ]]
  [ "$(find "$here/system/cubin" -mindepth 2 -type f | wc -l)" -eq "$kernels" ]
  run "$MOONKILN" cache list
  [[ $output == *"(system's)"* ]]
  "$MOONKILN" cache clear
  [ "$(find "$here/system/cubin" -mindepth 2 -type f | wc -l)" -eq "$kernels" ]
  chmod go+w "$here/system"
  run "$MOONKILN" compile "$here/graph.lua"
  [[ $output == *"$here/system can be written by others"*"0 from the cache"* ]]
}

@test "eight processes start at once on an empty cache" {
  need_nvrtc
  graph
  for i in 1 2 3 4 5 6 7 8; do "$MOONKILN" compile "$here/graph.lua" >"$here/$i.out" 2>&1 & done
  wait
  cat "$here"/?.out
  kernels=$(head -n 1 "$here/1.out" | cut -d ' ' -f 1)
  compiled=0
  for i in 1 2 3 4 5 6 7 8; do
    grep -q "^$kernels kernels: .* 0 failed" "$here/$i.out"
    compiled=$((compiled + $(sed -E 's/.*cache, ([0-9]+) compiled.*/\1/' "$here/$i.out")))
  done
  [ "$compiled" -eq "$kernels" ]
  run "$MOONKILN" cache verify
  [[ $output == "$kernels kernels are good, 0 damaged, 0 left over"* ]]
}

@test "one that is killed while compiling holds nobody up" {
  need_nvrtc
  graph
  MOONKILN_WORKERS=1 "$MOONKILN" compile "$here/graph.lua" --all >/dev/null 2>&1 &
  sleep 0.5
  kill -9 $!
  run "$MOONKILN" compile "$here/graph.lua" --all
  [ "$status" -eq 0 ]
  [[ $output == *" 0 failed"* ]]
  [ "$("$MOONKILN" cache verify | grep -c damaged:)" -eq 0 ]
}

@test "damaged entries are compiled again" {
  need_nvrtc
  compiled
  for file in "$MOONKILN_CACHE"/cubin/??/*; do printf x | dd of="$file" bs=1 seek=700 conv=notrunc status=none; done
  run "$MOONKILN" compile "$here/graph.lua"
  [ "$status" -eq 0 ]
  [[ $output == *"is damaged and is compiled again"*" 0 from the cache"* ]]
  run "$MOONKILN" cache verify
  [ "$status" -eq 0 ]
}

@test "without a cache that can be used, kernels are compiled and not kept, with one warning" {
  need_graph
  fake_driver
  mkdir "$here/open" && chmod 777 "$here/open"
  touch "$here/file"
  ln -s "$here/nowhere/at/all" "$here/link"
  for folder in /proc/nowhere "$here/open" "$here/file" "$here/link"; do
    MOONKILN_CACHE=$folder run run_graph
    echo "$folder: $status $output"
    [ "$status" -eq 0 ]
    [ "$(grep -c 'warning: ' <<<"$output")" -eq 1 ]
    [[ $output == *"$folder"* && $output == *MOONKILN_CACHE* ]]
    rm "$out/y.safetensors"
    LD_LIBRARY_PATH='' MOONKILN_CACHE=$folder refused "$MOONKILN" compile "$here/graph.lua" -- "$folder"
  done
  [ -z "$(ls "$here/open")" ]
}

@test "a link to a folder of one's own is followed" {
  need_graph
  fake_driver
  mkdir -m 700 "$here/target"
  ln -s "$here/target" "$here/link"
  MOONKILN_CACHE=$here/link run run_graph
  [ -z "$output" ]
  MOONKILN_CACHE=$here/target MOONKILN_LOG=info run run_graph
  [[ $output == *" 0 compiled"* ]]
  [[ $output =~ "can launch kernels "([0-9.]+)" s after the program began" ]]
  awk -v t="${BASH_REMATCH[1]}" 'BEGIN { exit !(t >= 0 && t < 60) }'
}

@test "no home folder" {
  need_graph
  fake_driver
  command -v setpriv || skip "no setpriv"
  ((EUID == 0)) || skip "only root can become nobody at all"
  chmod 755 "$BATS_RUN_TMPDIR" "$BATS_TEST_TMPDIR" "$here" && chmod 777 "$out"
  someone() { setpriv --reuid 54321 --clear-groups env -u HOME -u XDG_CACHE_HOME -u MOONKILN_CACHE "$@"; }
  someone test -x "$MOONKILN" -a -r "$here/graph.lua" || skip "another user cannot come here"
  run someone "$MOONKILN" run "$here/graph.lua" --backend cuda --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/y.safetensors"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"no home folder"*"MOONKILN_CACHE"* ]]
}

@test "a full disk, and one that is read only" {
  need_graph
  fake_driver
  mkdir "$here/small"
  if ((EUID)) || ! mount -t tmpfs -o size=32k,mode=700 tmpfs "$here/small" 2>/dev/null; then skip "mounting is not allowed here"; fi
  export MOONKILN_CACHE=$here/small
  run run_graph
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"are not kept: "*"No space left"* ]]
  [ "$(grep -c 'are not kept' <<<"$output")" -eq 1 ]
  [ -z "$(find "$here/small" -name '*.tmp')" ]
  [ "$("$MOONKILN" cache verify | grep -c damaged:)" -eq 0 ]
  umount "$here/small"

  mount -t tmpfs -o size=4M,mode=700 tmpfs "$here/small"
  LD_LIBRARY_PATH='' "$MOONKILN" compile "$here/graph.lua" --all
  mount -o remount,ro "$here/small"
  rm -f "$out/y.safetensors"
  MOONKILN_LOG=info run run_graph
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *" 0 compiled"* ]]
  FAKE_ARCH=80 run run_graph
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"are not kept: "*"Read-only file system"* ]]
}

@test "usage" {
  run "$MOONKILN" cache --help
  [ "$status" -eq 0 ]
  for arguments in "" "shrink" "list verify" "clear --remove" "verify --nonsense" "show" "export" "import" "import a b" \
    "trim --kernel x" "list --limit 1G" "export x --cubin y"; do
    # shellcheck disable=SC2086
    run "$MOONKILN" cache $arguments
    [ "$status" -eq 2 ]
  done
}

@test "a worker started by hand says so" {
  run "$MOONKILN" compile-worker </dev/null
  [ "$status" -eq 2 ]
  [[ $output == *"started by moonkiln itself"* ]]
}
