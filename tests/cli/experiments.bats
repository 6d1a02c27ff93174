#!/usr/bin/env bats
# What a person who writes kernels uses: folders of templates, dumps and edited kernels, tables of variants, sweeps.
# shellcheck disable=SC2154,SC2016 # here, out, status, output: helper.bash, bats; patterns with backquotes

setup() { load helper; common; }

graph=scripts/experiments/own_template.lua
own=scripts/experiments/own_template

@test "a folder of templates is picked up, by option and by environment" {
  "$MOONKILN" emit $graph --templates $own >"$here/plan"
  grep -q "plain_matmul rows=4 step=16" "$here/plan"
  MOONKILN_TEMPLATES=$own "$MOONKILN" emit $graph | diff "$here/plan" -
  "$MOONKILN" emit $graph >"$here/without"
  [ "$(grep -c plain_matmul "$here/without")" = 0 ]
}

@test "a template with a built-in one's name wins, and says so" {
  mkdir "$here/mine"
  cp $own/plain_matmul.cu "$here/mine/matmul_simt.cu"
  cp $own/plain_matmul.lua "$here/mine/matmul_simt.lua"
  run "$MOONKILN" emit $graph --templates "$here/mine" --set policy=f32
  [ "$status" = 0 ]
  [[ $output == *"$here/mine/matmul_simt.lua takes the place of the built-in template"* ]]
  [[ $output == *"matmul_simt rows=4 step=16"* && $output != *"matmul_simt tile_m"* ]]
}

@test "a mistake in a sidecar is named with file, field and line" {
  cp -r $own "$here/mine"
  sed -i 's/valid = function(p, t) return p.m > 16/valid = function(p, t) return p.rows > 16/' "$here/mine/plain_matmul.lua"
  refused "$MOONKILN" emit $graph --templates "$here/mine" -- "$here/mine/plain_matmul.lua" "field 'valid'" "plain_matmul.lua:16"
  refused "$MOONKILN" emit $graph --templates "$here/nowhere" -- "$here/nowhere" --templates
  refused env "MOONKILN_TEMPLATES=$here/nowhere" "$MOONKILN" emit $graph -- "$here/nowhere"
}

@test "a file alone is for including, or is named" {
  cp -r $own "$here/mine"
  echo 'return 3' >"$here/mine/shared.lua"
  run "$MOONKILN" emit $graph --templates "$here/mine"
  [[ $output == *"$here/mine/shared.lua is left out"* ]]
  sed -i '1s/^/include("shared.lua")\n/' "$here/mine/plain_matmul.lua"
  run "$MOONKILN" emit $graph --templates "$here/mine"
  [[ $status = 0 && $output != *"left out"* ]]
}

@test "every choice of the own template compiles for every architecture, with no spills" {
  need_nvrtc
  local arch
  for arch in sm_80 sm_89 sm_90a sm_100a sm_120a; do
    "$MOONKILN" emit $graph --templates $own --arch $arch --all --kernel plain_matmul --stage sass-report >"$here/report"
    [ "$(grep -c ' spill=0 ' "$here/report")" = 3 ]
  done
}

@test "a dump holds every stage, and is loaded again" {
  "$MOONKILN" emit $graph --no-cublaslt --dump "$out/d"
  diff <("$MOONKILN" emit $graph --stage ir) "$out/d/ir.txt"
  diff <("$MOONKILN" emit $graph --no-cublaslt --stage groups) "$out/d/groups.txt"
  diff <("$MOONKILN" emit $graph --no-cublaslt --stage plan) "$out/d/plan.txt"
  grep -q -- '-arch=sm_90a' "$out/d/compile.txt"
  local kernels=("$out"/d/*.cu)
  [ ${#kernels[@]} = 2 ] # the casts share one
  run "$MOONKILN" emit $graph --no-cublaslt --load "$out/d"
  [ "$status" = 0 ]
  [[ $output == *"2 kernels, edited: none"* ]]
}

@test "an edited kernel is compiled in place of the emitted one" {
  need_nvrtc
  "$MOONKILN" emit $graph --no-cublaslt --kernel matmul --dump "$here/d"
  local file=("$here"/d/matmul*.cu)
  sed -i 's/^extern "C" __global__/__device__ int edited_here;\n&/' "${file[0]}"
  run "$MOONKILN" emit $graph --load "$here/d" --stage ptx --kernel matmul
  [ "$status" = 0 ]
  [[ $output == *"1 kernels, edited: $(basename "${file[0]}" .cu)"* && $output == *"edited_here"* ]]
  sed -i 's/^extern "C" __global__/a typing error\n&/' "${file[0]}"
  refused "$MOONKILN" emit $graph --load "$here/d" --stage sass-report -- "$(basename "${file[0]}" .cu)" "a typing error"
}

@test "a folder that does not fit is refused" {
  "$MOONKILN" emit $graph --no-cublaslt --dump "$here/d"
  refused "$MOONKILN" emit $graph --set hidden=1024 --no-cublaslt --load "$here/d" -- "$here/d/matmul_" "no kernel of that name" --set
  refused "$MOONKILN" run $graph --backend cpu --load "$here/d" -- --load "CPU"
  refused "$MOONKILN" emit $graph --load "$here/none" -- "$here/none" --dump
  local file=("$here"/d/matmul*.cu)
  sed -i 's/^struct Params {/&\n  int more;/' "${file[0]}"
  refused "$MOONKILN" emit $graph --no-cublaslt --load "$here/d" -- "${file[0]}" "struct Params"
}

@test "a dump goes to a new folder, whole or not at all" {
  mkdir "$here/d" && touch "$here/d/mine"
  refused "$MOONKILN" emit $graph --dump "$here/d" -- "$here/d" "new folder"
  refused "$MOONKILN" emit $graph --dump "$here/none/d" -- "$here/none/d"
  refused "$MOONKILN" emit $graph --dump "$here/e" --kernel nothing -- nothing
  [ ! -e "$here/e" ]
  mkdir "$here/f"
  "$MOONKILN" emit $graph --dump "$here/f/" # an empty one will do
  [ -e "$here/f/plan.txt" ]
}

# ---- with a made-up GPU: nothing is computed, but everything is compiled, loaded and launched

@test "run and bench take templates and edited kernels" {
  need_nvrtc
  fake_driver
  tensors write "$here/w.safetensors" 1 fc.weight=512x256 fc.bias=512
  tensors write "$here/x.safetensors" 2 x=100x256 residual=100x512
  "$MOONKILN" emit $graph --no-cublaslt --kernel matmul --dump "$here/d"
  local kernel
  kernel=$(basename "$here"/d/matmul*.cu .cu)
  sed -i 's/^extern "C" __global__/__device__ int edited_here;\n&/' "$here/d/$kernel.cu"
  run "$MOONKILN" run $graph --backend cuda --weights "$here/w.safetensors" \
    --inputs "$here/x.safetensors" --outputs "$here/y.safetensors" --load "$here/d"
  echo "$output"
  [ "$status" = 0 ]
  [[ $output == *"1 kernels, edited: $kernel"* ]]
  run "$MOONKILN" bench $graph --synthetic 1 --templates $own --load "$here/d" --json
  [ "$status" = 0 ]
  [[ $output == *"matmul_mma"* && $output == *"edited: $kernel"* ]]
}

# ---- tables of variants

@test "every candidate is in the table; without a GPU what the compiler says" {
  need_nvrtc
  run "$MOONKILN" bench $graph --templates $own --variants
  [ "$status" = 0 ]
  [[ $output == *"kernels are compiled for sm_90a only"* && $output == *"times and errors need a GPU"* ]]
  grep -qE '^\* matmul_mma .* - +- +- +[0-9]+ +65536 +0$' <<<"$output"
  [ "$(grep -cE '^  plain_matmul rows=[24] step=(16|32) .* [0-9]+ +[0-9]+ +0$' <<<"$output")" = 3 ]
  [[ $output != *"since the last save"* ]]
}

# watches PATTERN FILE: waits until the file has the pattern.
watches() {
  local i
  for ((i = 0; i < 300; i++)); do
    if grep -qE -- "$1" "$2"; then return 0; fi
    sleep 0.1
  done
  cat "$2"
  return 1
}

@test "--watch shows each save's table, waits after a mistake, and says what changed" {
  need_nvrtc
  cp $graph "$here/g.lua"
  cp -r $own "$here/mine"
  "$MOONKILN" bench "$here/g.lua" --templates "$here/mine" --watch --watch-count 4 >"$here/log" 2>&1 3>&- &
  local job=$!
  watches "-- waiting" "$here/log"
  sed -i 's/tunables = {/tunables = [/' "$here/mine/plain_matmul.lua"
  watches "mine/plain_matmul.lua: plain_matmul.lua:14:" "$here/log"
  sed -i 's/tunables = \[/tunables = {/' "$here/mine/plain_matmul.lua"
  sed -i 's/acc\[i\]\[j\] = 0.f/acc[i][j] = 0.5f/' "$here/mine/plain_matmul.cu"
  watches "plain_matmul rows=2 step=16 .* registers [+-][0-9]+, spills" "$here/log"
  sed -i 's/:gelu()/:silu(/' "$here/g.lua"
  watches "g.lua:[0-9]+:" "$here/log"
  wait $job && false # the last round failed, so does the command
  [ "$(grep -c "waiting for the next save" "$here/log")" = 3 ]
  grep -q "since the last save" "$here/log"
  grep -q "^  matmul_mma .*  same code$" "$here/log" || grep -q "^\* matmul_mma .*  same code$" "$here/log"
}

@test "a kernel that does not compile is a line, with the compiler's words below" {
  need_nvrtc
  cp -r $own "$here/mine"
  sed -i 's/__syncthreads();/syncthreds();/' "$here/mine/plain_matmul.cu"
  run "$MOONKILN" bench $graph --templates "$here/mine" --variants
  [ "$status" = 0 ]
  [[ $output == *"plain_matmul rows=2 step=16"*"fails, see below"* && $output == *'identifier "syncthreds" is undefined'* ]]
}

@test "on a GPU variants are timed and compared with the CPU backend" {
  need_nvrtc
  fake_driver
  run "$MOONKILN" bench $graph --templates $own --variants
  echo "$output"
  [ "$status" = 0 ]
  grep -qE '^  plain_matmul rows=2 step=16 +8000\.00 +[0-9]+% +[0-9.e+-]+! +70 +6272 +0$' <<<"$output" # nothing was computed
  [[ $output == *"on Made-up GPU: 8000.00 us as planned"*"errors against the CPU backend"* ]]
}

@test "edited kernels are the only variants of their groups" {
  need_nvrtc
  "$MOONKILN" emit $graph --no-cublaslt --kernel matmul --dump "$here/d"
  local file=("$here"/d/matmul*.cu)
  sed -i 's/^extern "C" __global__/__device__ int edited_here;\n&/' "${file[0]}"
  run "$MOONKILN" bench $graph --load "$here/d" --variants
  [ "$status" = 0 ]
  [ "$(grep -cE '^[* ] matmul_mma ' <<<"$output")" = 1 ]
}

# with_fake_gpu: one whose kernels take made-up time; kernels are compiled once for all of these tests.
with_fake_gpu() {
  need_nvrtc
  fake_gpu
  export MOONKILN_CACHE=${MOONKILN%/*}/test-cache/experiments FAKE_ARCH=80
  rm -rf "$MOONKILN_CACHE/tuning"
}

@test "the fastest that is right is marked" {
  with_fake_gpu
  FAKE_TIMES=plain_matmul=0.25 run "$MOONKILN" bench $graph --templates $own --variants
  echo "$output"
  [ "$status" = 0 ]
  grep -qE '^\* plain_matmul .* 250\.00 ' <<<"$output" || grep -qE '^  plain_matmul .* 250\.00 .*!' <<<"$output"
  grep -qE '^  matmul_mma .* 1000\.00 ' <<<"$output"
}

@test "a template that is faster is tuned and chosen, with nothing rebuilt" {
  with_fake_gpu
  cp -r $own "$here/mine"
  mv "$here/mine/plain_matmul.cu" "$here/mine/strangers.cu"
  mv "$here/mine/plain_matmul.lua" "$here/mine/strangers.lua"
  sed -i '/  flop = /d' "$here/mine/strangers.lua" # else the tuner takes the formulas' word that it is far behind
  export MOONKILN_TEMPLATES=$here/mine FAKE_TIMES=strangers=0.5
  run "$MOONKILN" tune $graph
  echo "$output"
  [ "$status" = 0 ]
  FAKE_LAUNCHES=$here/launches "$MOONKILN" bench $graph --synthetic 1 --iterations 1 >"$here/bench"
  grep -q '^strangers_' "$here/launches"
  if grep '^matmul_' "$here/launches"; then return 1; fi
  # without the folder nothing of it is missed
  MOONKILN_TEMPLATES='' FAKE_LAUNCHES=$here/others "$MOONKILN" bench $graph --synthetic 1 --iterations 1 >"$here/bench"
  grep -q '^matmul_' "$here/others"
}

@test "--watch goes on after a kernel that costs the process its GPU" {
  with_fake_gpu
  cp -r $own "$here/mine"
  FAKE_FAULT=plain_matmul "$MOONKILN" bench $graph --templates "$here/mine" --watch >"$here/log" 2>&1 3>&- &
  local job=$!
  watches "-- waiting" "$here/log"
  [ "$(grep -c "illegal\|made up" "$here/log")" -ge 1 ]
  touch "$here/mine/plain_matmul.cu"
  for ((i = 0; i < 200; i++)); do # the same again, in a process of its own
    if [ "$(grep -c -- "-- waiting" "$here/log")" -ge 2 ]; then break; fi
    sleep 0.1
  done
  kill $job
  [ "$(grep -c -- "-- waiting" "$here/log")" -ge 2 ]
}

# ---- sweeps

@test "a sweep over tunables and parameters, as CSV and as a page" {
  need_nvrtc
  "$MOONKILN" bench $graph --templates $own --sweep rows=2,8 --sweep tokens=64..256 --csv "$here/s.csv" --html "$here/s.html"
  [ "$(wc -l <"$here/s.csv")" = 7 ]
  [ "$(head -n 1 "$here/s.csv")" = \
    rows,tokens,ms,tflops,gbs,roofline_percent,registers,smem_bytes,spill_bytes,candidate,group,message ]
  [ "$(cut -d , -f 1-2 "$here/s.csv" | tail -n 6 | tr '\n' ' ')" = "2,64 2,128 2,256 8,64 8,128 8,256 " ]
  [ "$(grep -c 'plain_matmul rows=8' "$here/s.csv")" = 3 ]
  grep -q '<polyline points=' "$here/s.html"
  if grep -E 'https?://|<script src|<link' "$here/s.html"; then return 1; fi
}

@test "a sweep on a GPU has times" {
  need_nvrtc
  fake_driver
  "$MOONKILN" bench $graph --sweep tile_m=64,128 --sweep params.tokens=300,600 --csv "$here/s.csv" --html "$here/s.html"
  cat "$here/s.csv"
  [ "$(grep -cE '^(64|128),(300|600),8,0\.[0-9]+,[0-9.]+,[0-9.]+,[0-9]+,[0-9]+,0,' "$here/s.csv")" = 4 ]
  grep -q 'TFLOP/s</text>' "$here/s.html"
}

@test "a point that cannot be run is a line with a message" {
  need_nvrtc
  "$MOONKILN" bench $graph --templates $own --sweep hidden=64,66,-1 --sweep rows=4 --csv "$here/s.csv"
  grep -qE '^64,4,,,,,[0-9]+,' "$here/s.csv"
  grep -qE '^66,4,,,,,,,,,,no candidate of any group can have rows=4 here' "$here/s.csv"
  grep -qE '^-1,4,.*own_template.lua' "$here/s.csv"
}

@test "wrong sweeps are refused" {
  refused "$MOONKILN" bench $graph --sweep tile_m -- "--sweep tile_m" NAME=VALUE
  refused "$MOONKILN" bench $graph --sweep tile_m=64..x -- "1024..131072"
  refused "$MOONKILN" bench $graph --sweep tile_m=65 -- "tile_m=65" matmul_mma 128
  refused "$MOONKILN" bench $graph --sweep tokens=1..4000000000 --sweep hidden=1..4000000000 --sweep dim=4,8 -- combinations
  refused "$MOONKILN" bench $graph --csv "$out/x.csv" -- --sweep
  refused "$MOONKILN" bench $graph --watch --sweep tokens=1,2 -- "only one"
  refused "$MOONKILN" bench $graph --watch-count 3 -- --watch
}

# ---- what is written is true

# in_a_folder: the test's own folder with what README and experiments name.
# Kernels are taken from the tests' common cache, for they are many.
in_a_folder() {
  export MOONKILN_CACHE=${MOONKILN%/*}/test-cache
  ln -s "$PWD/scripts" "$PWD/templates" "$here"
  tensors write "$here/w.safetensors" 1 norm.weight=256 gate.weight=688x256 up.weight=688x256 down.weight=256x688
  tensors write "$here/x.safetensors" 2 x=100x256
  cd "$here" || return 1
}

# perform LINE: a command line of a text; --watch ends after its first table.
perform() {
  local line=${1/--watch/--watch --watch-count 1}
  echo "$ $line"
  moonkiln() { "$MOONKILN" "$@"; }
  eval "$line" >"$here/said" 2>&1 || { cat "$here/said"; return 1; }
}

@test "every command of the README's section runs" {
  need_nvrtc
  fake_driver
  tests/readme_commands.sh "Kernels of your own" >"$here/commands"
  [ "$(wc -l <"$here/commands")" -ge 8 ]
  in_a_folder
  while read -r line; do perform "$line"; done <"$here/commands"
  [ -s rows.csv ] && [ -s rows.html ] && [ -s swiglu/plan.txt ] && [ -s y.safetensors ]
}

@test "every experiment is listed, has its page, cases, and commands that run" {
  need_nvrtc
  local file line ran=0
  for file in scripts/experiments/*.lua; do
    grep -q "($(basename "$file"))" scripts/experiments/README.md
    [ "$(grep -c '^--' "$file")" -ge 20 ]
    grep -q '^-- case ' "$file"
    sed -nE 's/^-- +(moonkiln (emit|bench) .*)/\1/p' "$file" >>"$here/commands"
  done
  in_a_folder
  while read -r line; do
    perform "${line//\/tmp\//$here/}"
    ran=$((ran + 1))
  done <"$here/commands"
  ((ran >= 15))
}

@test "run: a graph that has no weights, and one that needs some, on a GPU" {
  with_fake_gpu
  tensors write "$here/x.safetensors" 1 x=4x8
  echo 'output("y", input{name="x", shape={4, 8}}:exp())' >"$here/graph.lua"
  run "$MOONKILN" run "$here/graph.lua" --backend cuda --inputs "$here/x.safetensors" --outputs "$here/y.safetensors"
  echo "$output"
  [ "$status" = 0 ]
  echo 'output("y", input{name="x", shape={4, 8}} + weight("w", {8}))' >"$here/graph.lua"
  run "$MOONKILN" run "$here/graph.lua" --backend cuda --inputs "$here/x.safetensors" --outputs "$here/y.safetensors"
  echo "$output"
  [ "$status" = 2 ]
  [[ $output == *"weight 'w', and no weights were given"* ]]
}
