# Shared by the tests of the command line. Files of a test lie in $BATS_TEST_TMPDIR, those of a whole file in $BATS_FILE_TMPDIR.
# shellcheck disable=SC2154 # status and output are bats's

# To be called from setup: the program, and folders of the test's own. Nothing of the machine's GPU or cache is used.
common() {
  cd "$BATS_TEST_DIRNAME/../.." || exit 1
  MOONKILN=${MOONKILN:-$PWD/build/moonkiln}
  export MOONKILN_CACHE=$BATS_TEST_TMPDIR/cache MOONKILN_SYSTEM_CACHE=off CUDA_VISIBLE_DEVICES=
  here=$BATS_TEST_TMPDIR
  out=$here/out
  mkdir "$out"
}

tensors() { lua5.4 tests/cli/tensors.lua "$@"; }

# model LAYOUT: a copy of the tiny checkpoint to spoil, in $here/model. Files are links: remove one before writing to it.
model() { cp -rl "$BATS_FILE_TMPDIR/$1" "$here/model"; }

# A checkpoint as small as there is, in both layouts; to be called from setup_file.
make_models() {
  cd "$BATS_TEST_DIRNAME/../.." || exit 1
  lua5.4 scripts/tiny_checkpoint.lua "$BATS_FILE_TMPDIR/diffusers"
  lua5.4 scripts/tiny_checkpoint.lua "$BATS_FILE_TMPDIR/original" --layout original
}

# generate MODEL [OPTION]...: a small video on the CPU. Later options win.
generate() {
  local folder=$1
  shift
  "$MOONKILN" generate "$folder" --prompt "a cat" --backend cpu --size 32x32 --frames 5 --steps 2 --out "$out/x.mp4" "$@"
}

# refused COMMAND [ARGUMENT]... -- WORD...: the command fails without a crash, within 20 s, says every WORD and leaves no file.
refused() {
  local command=()
  while [[ $1 != -- ]]; do command+=("$1"); shift; done
  shift
  if [[ $(type -t "${command[0]}") == function ]]; then
    local SECONDS=0
    run "${command[@]}"
    ((SECONDS <= 20))
  else
    run timeout 20 "${command[@]}"
  fi
  echo "exit $status: $output"
  ((status > 0 && status < 124))
  [[ $output == *"moonkiln: "* ]]
  for word; do
    [[ $output == *"$word"* ]] || { echo "the message does not say: $word"; return 1; }
  done
  [[ -z $(find "$out" -mindepth 1) ]] || { find "$out"; return 1; }
}

# Skips the test where there is no NVRTC.
need_nvrtc() {
  if "$MOONKILN" info | grep -qE '^NVRTC +not found'; then skip "no NVRTC"; fi
}

# A driver that is made up, before the machine's own (tests/cli/fake_driver.c says what it can be told). Compile workers do not
# see it: NVRTC asks the driver, too. Options are the compiler's.
fake_driver() {
  cc -shared -fPIC -I. -o "$here/libcuda.so.1" "$@" tests/cli/fake_driver.c tests/cli/fake_driver_rest.c
  printf '#!/bin/sh\nunset LD_LIBRARY_PATH\nexec "%s" "$@"\n' "$MOONKILN" >"$here/worker"
  chmod +x "$here/worker"
  export LD_LIBRARY_PATH=$here MOONKILN_WORKER=$here/worker
}

# The same with memory that holds something and kernels that take time (tests/cli/fake_device.c).
fake_gpu() { fake_driver -DFAKE_DEVICE tests/cli/fake_device.c; }
