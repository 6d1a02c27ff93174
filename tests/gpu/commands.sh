#!/usr/bin/env bash
# What people do with the program, on a real card: first and later starts, kernels of their own, kernels that cannot be compiled,
# every command of the README. One line each, "ok" or "not ok" with a reason, and "N passed, N failed" at the end.
# usage: tests/gpu/commands.sh [FUNCTION]..., in a checkout; without any: all
#   BUILD                 where the programs and graphs are, unless told: build
#   MOONKILN, GPU_CHECK   the programs
#   RANDOM_GRAPHS         folder of graphs that test_random_graphs wrote
#   LUA                   lua5.4
#   START_LIMIT           seconds a warm start may take (0.3)
# shellcheck disable=SC2016 # patterns with backquotes
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
BUILD=$(realpath "${BUILD:-$root/build}")
MOONKILN=$(realpath "${MOONKILN:-$BUILD/moonkiln}")
GPU_CHECK=$(realpath "${GPU_CHECK:-$BUILD/gpu/gpu_check}")
RANDOM_GRAPHS=$(realpath -m "${RANDOM_GRAPHS:-$BUILD/gpu/random}")
LUA=${LUA:-lua5.4} wanted=" $* " passed=0 failed=0 skipped=0
work=$(mktemp -d) && cd "$work" || exit 1
trap 'rm -rf "$work"' EXIT
ln -s "$root/scripts" "$root/templates" .
export MOONKILN_DATA=$root MOONKILN_CACHE=$work/cache MOONKILN_SYSTEM_CACHE=off OMP_WAIT_POLICY=passive
mkdir bin && ln -s "$MOONKILN" bin/moonkiln && PATH=$work/bin:$PATH
if ! moonkiln info | grep -qE '^GPU +0'; then
  moonkiln info
  echo "Bail out! no GPU"
  exit 1
fi

# check TITLE FUNCTION: runs it in a shell that stops at the first error. It may say more with note, or skip.
check() {
  local from=$EPOCHREALTIME status said=""
  [[ $wanted == "  " || $wanted == *" $2 "* ]] || return 0
  rm -f note skip
  (set -eu; "$2") >log 2>&1
  status=$?
  [[ -e note ]] && said=" ($(paste -sd ';' note))"
  if [[ -e skip ]]; then
    skipped=$((skipped + 1))
    echo "ok - $1 # SKIP $(<skip)"
  elif ((status)); then
    failed=$((failed + 1))
    echo "not ok - $1$said"
    tail -n 15 log | cut -c 1-400 | sed 's/^/#   /'
  else
    passed=$((passed + 1))
    echo "ok - $1$said # $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $from }") s"
  fi
}

note() { echo "$*" >>note; }
skip() { echo "$*" >skip; exit 0; }
fail() { echo "$*"; return 1; }
tensors() { "$LUA" "$root/tests/cli/tensors.lua" "$@"; }

tiny() { [[ -d tiny ]] || "$LUA" "$root/scripts/tiny_checkpoint.lua" tiny; }

generate() { moonkiln generate tiny --prompt "a cat" --size 32x32 --frames 5 --steps 2 --out x.y4m "$@"; }

# ---- first and later starts

# All that the eight compile together is each kernel once.
eight_at_once() {
  local i jobs=() entries compiled
  export MOONKILN_CACHE=$work/eight MOONKILN_LOG=info
  tensors write w.st 1 ln_1.weight=256 ln_1.bias=256 ln_2.weight=256 ln_2.bias=256 attn.c_attn.weight=768x256 attn.c_attn.bias=768 \
    attn.c_proj.weight=256x256 attn.c_proj.bias=256 mlp.c_fc.weight=1024x256 mlp.c_fc.bias=1024 mlp.c_proj.weight=256x1024 \
    mlp.c_proj.bias=256
  tensors write x.st 2 x=100x256
  for i in {1..8}; do
    moonkiln run scripts/experiments/gpt_block.lua --set tokens=100 --backend cuda --weights w.st --inputs x.st --outputs "$i.st" \
      2>"$i.err" &
    jobs+=($!)
  done
  for i in {1..8}; do wait "${jobs[i - 1]}" || { cat "$i.err"; fail "process $i failed"; }; done
  for i in {2..8}; do cmp 1.st "$i.st"; done
  moonkiln cache verify
  entries=$(moonkiln cache list | grep -c registers=)
  compiled=$(sed -nE 's/.* kernels: .* ([0-9]+) compiled .*/\1/p' ./[1-8].err | awk '{ sum += $1 } END { print sum }')
  note "$entries kernels, compiled $compiled times"
  ((entries > 3 && compiled == entries))
}

# compiles_nothing FILE: the log of a command says so; the first launch could begin at once.
compiles_nothing() {
  local seconds
  grep -E 'kernels: |launch kernels' "$1"
  if grep -qE 'kernels: .* [1-9][0-9]* compiled' "$1"; then fail "kernels were compiled"; fi
  seconds=$(sed -nE 's/.* can launch kernels ([0-9.]+) s after.*/\1/p' "$1" | head -n 1)
  note "first launch possible after $seconds s"
  awk "BEGIN { exit !($seconds <= ${START_LIMIT:-0.3}) }"
}

# Once one size is tuned, others find its kernels.
another_size() {
  local size i
  tiny
  for i in {1..5}; do # goes on where it ended
    moonkiln tune tiny --size 96x96 --frames 9 2>&1 | tr '\r' '\n' | tail -n 3 >said
    if grep -q ' 0 not reached' said; then break; fi
  done
  cat said
  note "$(grep -oE '[0-9]+ kinds of groups.* not reached' said)"
  grep -q ' 0 not reached' said
  for size in "128x64 --frames 13" "96x96 --frames 5" "112x80 --frames 9"; do
    # shellcheck disable=SC2086
    MOONKILN_LOG=info generate --size $size 2>err || { cat err; fail "--size $size"; }
    compiles_nothing err || fail "--size $size"
  done
}

same_bits() {
  tiny
  generate --no-tune --seed 7 --out a.safetensors
  generate --no-tune --seed 7 --out b.safetensors
  cmp a.safetensors b.safetensors
  generate --no-tune --seed 8 --out c.safetensors
  if cmp -s a.safetensors c.safetensors; then fail "another seed gives the same video"; fi
}

# ---- kernels of one's own

# fastest NAME: microseconds of the fastest variant whose name begins so
fastest() { sed -nE "s/^[* ] $1.* ([0-9]+\.[0-9]{2}) .*/\1/p" variants | sort -n | head -n 1; }

# strangers VERDICT SETTING...: what the stranger's template is after tuning, and what the plan then uses.
strangers() {
  local verdict=$1 graph=$root/tests/gpu/graphs/few_queries.lua own=$root/tests/gpu/templates
  shift
  moonkiln tune "$graph" --templates "$own" "$@"
  moonkiln bench "$graph" --templates "$own" "$@" --variants >variants
  moonkiln bench "$graph" --templates "$own" "$@" --synthetic 1 >plan
  cat variants plan
  note "$verdict: $(fastest few_queries) us against $(fastest attention_)"
  if [[ $verdict == wins ]]; then
    grep -qE '^\* few_queries' variants
    grep -q few_queries plan
  else
    grep -qE '^\* attention_' variants
    grep -q 'attention_' plan
    grep -qE '^  few_queries .* [0-9.]+ ' variants
  fi
}
stranger_wins() { strangers wins --set queries=1 --set keys=32768; }
stranger_loses() { strangers loses --set queries=4096 --set keys=4096 --set heads=8; }

# One crashes the compiler, one never ends; by their own words both are the cheapest.
bad_templates() {
  local word
  cat >graph.lua <<'END'
local x = input { name = "x", shape = { 64, 128 } }
output("y", matmul(x:cast "bf16", weight("w", { 256, 128 }):cast "bf16"):gelu())
END
  tensors write w.st 1 w=256x128
  tensors write x.st 2 x=64x128
  local run=(moonkiln run graph.lua --weights w.st --inputs x.st --outputs)
  "${run[@]}" cpu.st --backend cpu
  MOONKILN_COMPILE_TIMEOUT=3 "${run[@]}" y.st --backend cuda --templates "$root/tests/gpu/bad_templates" >said 2>&1 || { cat said; fail "it ended"; }
  cat said
  note "$(grep -oE 'kernel crashing_.*(crashed|ended without|does not compile).*' said | head -n 1 | cut -c 1-90)"
  grep -qE 'kernel crashing_.*(crashed|ended without a result|does not compile)' said
  grep -qE 'kernel endless_.*took longer than 3 s|kernel endless_.*does not compile' said
  for word in crashing endless; do grep -q KERNEL "$(grep -A 30 "kernel $word" said | grep -oE 'its source is in .*' | head -n 1 | cut -d ' ' -f 5)"; done
  awk "BEGIN { exit !($(tensors distance y.st y cpu.st y) < 1e-2) }"
}

# ---- the README

# perform LINE: a command line of the README, made short: a small model for the large one, the first table only.
perform() {
  local line=$1
  line=${line//MODEL_DIR/tiny}
  line=${line//Wan2.2-T2V-A14B/tiny}
  line=${line//GRAPH.lua/scripts/experiments/swiglu_mlp.lua}
  line=${line//--weights W.safetensors --inputs X.safetensors/--weights w.safetensors --inputs x.safetensors}
  line=${line//KEY/$(moonkiln cache list | grep -oE '[0-9a-f]{16,}' | head -n 1)}
  line=${line/--watch/--watch --watch-count 1}
  case $line in
    *generate*)
      line="${line/.mp4/.$video} --size 32x32 --frames 5 --steps 2 --tune-budget 5"
      [[ $video == mp4 ]] || line=$(sed -E 's/ --sheet [^ ]+//' <<<"$line")
      ;;
    *"tune a14b"* | *"tune tiny"*) line+=" --tune-budget 8" ;;
    *"profile a14b"*) line+=" --frames 5 --iterations 1" ;;
  esac
  echo "\$ $line"
  eval "$line" >said 2>&1 || { cat said; return 1; }
}

readme() {
  local line ran=0 video=mp4
  tiny
  generate --no-tune --out x.mp4 && [[ -s x.mp4 ]] || video=y4m # no FFmpeg
  tensors write w.safetensors 1 norm.weight=256 gate.weight=688x256 up.weight=688x256 down.weight=256x688
  tensors write x.safetensors 2 x=100x256
  "$root/tests/readme_commands.sh" >lines
  while read -r line; do
    perform "$line" || fail "$line"
    ran=$((ran + 1))
  done <lines
  note "$ran commands"
  ((ran >= 17))
  [[ -s rows.csv && -s rows.html && -s step.html && -s y.safetensors && -s cats.$video ]]
}

readme_options() {
  local option ran=0
  tiny
  generate --tune-budget 0
  for option in "--size 64x32 --frames 9" "--steps 3 --sampler dpm++" "--guidance 3.0,4.0" "--guidance 1" '--negative ""' "--seed 42" "--rng cuda" \
    "--grid diffusers --shift 3" "--offload" "--policy fp32" "--policy tf32" "--backend cpu" "--out x.safetensors"; do
    eval "generate --no-tune $option" || fail "generate $option"
    ran=$((ran + 1))
  done
  note "$ran"
}

# The table's shares make a whole, and what --json printed can be read again.
profile_adds_up() {
  local share
  moonkiln profile a14b --size 832x480 --frames 17 --iterations 2 --json >step.json
  moonkiln profile --from step.json --html page.html >table
  cat table
  share=$(awk '/^kind/ { tables++ } tables == 1 { for (i = 4; i < 7; i++) if ($i ~ /%$/) { sum += $i; break } } END { print sum }' table)
  note "shares add up to $share %, $(sed -nE 's/^step of .* frames: ([0-9.]+) ms as a whole.*/\1/p' table) ms"
  awk "BEGIN { exit !($share > 99 && $share < 101) }"
  grep -q '</html>' page.html
}

# The same at full width, with made-up weights and what the first run found out; what it did not reach is not measured in the second.
another_size_a14b() {
  local full=(moonkiln generate --synthetic 1 --config a14b --prompt "a cat" --steps 1 --guidance 1 --out x.y4m)
  "${full[@]}" --size 832x480 --frames 9
  MOONKILN_LOG=info "${full[@]}" --size 1280x720 --frames 5 --tune-budget 0 2>err || { cat err; fail "it ended"; }
  compiles_nothing err
}

# ---- every bit of memory

random_graphs() {
  local count
  [[ -d $RANDOM_GRAPHS ]] || skip "no $RANDOM_GRAPHS (make check-gpu writes it)"
  "$GPU_CHECK" --fast "$RANDOM_GRAPHS"/*.lua >said || { grep -A 1 '^not ok' said; fail "$(tail -n 1 said)"; }
  count=$(grep -c '^ok' said)
  note "$count equal"
  ((count == $(find "$RANDOM_GRAPHS" -name '*.lua' | wc -l) && count >= 50))
}

sanitizer() {
  local tool
  tool=$(command -v compute-sanitizer || find /usr/local/cuda*/bin -name compute-sanitizer 2>/dev/null | head -n 1)
  [[ -n $tool ]] || skip "no compute-sanitizer"
  tiny
  generate --no-tune --out a.safetensors # compiled before
  "$tool" --tool memcheck --error-exitcode 9 "$MOONKILN" generate tiny --prompt "a cat" --size 32x32 --frames 5 --steps 1 --no-tune --out a.safetensors
}

check "random graphs give what the CPU gives" random_graphs
check "eight processes at once on an empty cache" eight_at_once
check "one seed, one video, to the bit" same_bits
check "a stranger's template wins where it is faster" stranger_wins
check "a stranger's template loses where it is slower" stranger_loses
check "templates that crash and hang the compiler" bad_templates
check "profile adds up" profile_adds_up
check "another size of the model compiles nothing" another_size_a14b
check "every option of generate in the README" readme_options
check "memcheck finds nothing in generate" sanitizer
check "another size compiles nothing, once tuned" another_size
check "every command of the README" readme
((skipped)) && echo "$skipped skipped"
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
