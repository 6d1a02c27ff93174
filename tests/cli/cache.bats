#!/usr/bin/env bats
# moonkiln cache: the folder of compiled kernels seen from outside.

setup() {
  cd "$BATS_TEST_DIRNAME/../.." || exit 1
  MOONKILN=${MOONKILN:-$PWD/build/moonkiln}
  export MOONKILN_CACHE=$BATS_TEST_TMPDIR/cache
  entry=$MOONKILN_CACHE/cubin/01/0123456789abcdef0123456789abcdef
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

@test "usage" {
  run "$MOONKILN" cache --help
  [ "$status" -eq 0 ]
  for arguments in "" "shrink" "list verify" "clear --remove" "verify --nonsense"; do
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
