#!/usr/bin/env bats
# What a person who writes kernels uses: folders of templates, dumps and edited kernels, tables of variants, sweeps.
# shellcheck disable=SC2154 # here, out, status, output: helper.bash, bats

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
  refused "$MOONKILN" emit $graph --templates "$here/mine" -- "$here/mine/plain_matmul.lua" "field 'valid'" "plain_matmul.lua:18"
  refused "$MOONKILN" emit $graph --templates "$here/nowhere" -- "$here/nowhere" --templates
  refused env "MOONKILN_TEMPLATES=$here/nowhere" "$MOONKILN" emit $graph -- "$here/nowhere"
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
