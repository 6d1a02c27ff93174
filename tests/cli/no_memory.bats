#!/usr/bin/env bats
# The system refuses memory, from some allocation on or once. The program says so and fails, or does without and its output is the
# usual one. It never crashes.
# shellcheck disable=SC2154,SC2016 # here, out: helper.bash; a command for another shell

setup() {
  load helper
  common
  if ldd "$MOONKILN" | grep -q libasan; then skip "the address sanitizer has its own malloc"; fi
  export OMP_NUM_THREADS=1
  cc -O1 -shared -fPIC -o "$here/failing.so" tests/cli/failing_malloc.c
  cat >"$here/graph.lua" <<'END'
local x = input { name = "x", shape = { 8, 16 } }
local n = (x - x:mean()) * ((x * x):mean() + 1e-6):rsqrt()
local s = state { name = "s", shape = { 8, 16 } }
update(s, s + n)
output("y", matmul(n:cast "bf16", weight("w", { 24, 16 }):cast "bf16"):gelu():slice(2, 3, 9):permute { 2, 1 })
output("z", attention(x:reshape { 8, 2, 8 }, x:reshape { 8, 2, 8 }, n:reshape { 8, 2, 8 }))
END
  tensors write "$here/w.safetensors" 1 w=24x16
  tensors write "$here/x.safetensors" 2 x=8x16
}

# attempt AT COMMAND [ARGUMENT]...: with refusals from allocation AT on. Says what is wrong: a crash, another result than the usual
# one (standard output and $out/result), or no message.
attempt() {
  local at=$1 status=0 said=$here/attempt.$1
  shift
  FAIL_AT=$at LD_PRELOAD="$here/failing.so" "$@" >"$said.out" 2>"$said.err" || status=$?
  if ((status >= 124)); then
    echo "from allocation $at: exit $status: $(head -c 300 "$said.err")"
  elif ((status == 0)) && ! { cmp -s "$here/usual" "$said.out" && { [ ! -e "$here/usual_result" ] || cmp -s "$here/usual_result" "$out/result"; }; }; then
    echo "from allocation $at: another result"
  elif ((status)) && [ ! -s "$said.err" ]; then
    echo "from allocation $at: exit $status and no message"
  fi
  rm -f "$out/result" "$said".*
}

# usual COMMAND [ARGUMENT]...: its result, and $total: how many allocations it makes
usual() {
  FAIL_COUNT=$here/count LD_PRELOAD=$here/failing.so "$@" >"$here/usual"
  [ ! -e "$out/result" ] || mv "$out/result" "$here/usual_result"
  total=$(<"$here/count")
  echo "$total allocations"
  ((total > 100))
}

# refuse_each COMMAND [ARGUMENT]...: with refusals from about 150 places on.
refuse_each() {
  local total at
  usual "$@"
  for ((at = 1; at <= total; at += at < 50 ? 1 : total / 100 + 1)); do attempt "$at" "$@"; done >"$here/wrong"
  head -n 20 "$here/wrong"
  [ ! -s "$here/wrong" ]
}

@test "emit, all the way to CUDA text" {
  refuse_each "$MOONKILN" emit "$here/graph.lua" --set a=1 --set b.c=text --stage cuda
}

# What is missing in the middle of a text must be noticed at its end. With few templates, so that there are not too many.
@test "emit, each single allocation refused in turn" {
  local total
  mkdir -p "$here/data/templates" "$here/data/scripts/models"
  cp templates/*.cuh templates/{common,simt_tile}.lua templates/{matmul,attention}_simt.* "$here/data/templates"
  export MOONKILN_DATA=$here/data here out FAIL_FOR=1
  export -f attempt
  usual "$MOONKILN" emit "$here/graph.lua" --stage cuda
  seq "$total" | xargs -P "$(nproc)" -I% bash -c 'attempt "$@"' - % "$MOONKILN" emit "$here/graph.lua" --stage cuda >"$here/wrong"
  head -n 20 "$here/wrong"
  [ ! -s "$here/wrong" ]
}

@test "run on the CPU" {
  refuse_each "$MOONKILN" run "$here/graph.lua" --backend cpu --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/result"
}
