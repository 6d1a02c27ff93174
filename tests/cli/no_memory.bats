#!/usr/bin/env bats
# The system refuses memory from some allocation on: each of the first ones, and then every so often. The program says so and fails,
# or does without and its output is the usual one. It never crashes.
# shellcheck disable=SC2154 # here, out: helper.bash

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

# refuse_each COMMAND [ARGUMENT]...: with refusals from about 150 places on. The result is standard output and $out/result.
refuse_each() {
  local total at status bad=0
  FAIL_COUNT=$here/count LD_PRELOAD=$here/failing.so "$@" >"$here/usual"
  [ ! -e "$out/result" ] || mv "$out/result" "$here/usual_result"
  total=$(<"$here/count")
  echo "$total allocations"
  ((total > 100))
  for ((at = 1; at <= total; at += at < 50 ? 1 : total / 100 + 1)); do
    status=0
    FAIL_AT=$at LD_PRELOAD="$here/failing.so" "$@" >"$here/stdout" 2>"$here/stderr" || status=$?
    if ((status == 0)); then
      cmp "$here/usual" "$here/stdout" || status=200
      [ ! -e "$here/usual_result" ] || cmp "$here/usual_result" "$out/result" || status=200
    elif ((status < 124)) && [ ! -s "$here/stderr" ]; then
      status=201
    fi
    rm -f "$out/result"
    if ((status >= 124)); then
      echo "from allocation $at: exit $status (200: another result, 201: no message): $(head -c 300 "$here/stderr")"
      bad=1
    fi
  done
  return $bad
}

@test "emit, all the way to CUDA text" {
  refuse_each "$MOONKILN" emit "$here/graph.lua" --set a=1 --set b.c=text --stage cuda
}

@test "run on the CPU" {
  refuse_each "$MOONKILN" run "$here/graph.lua" --backend cpu --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/result"
}
