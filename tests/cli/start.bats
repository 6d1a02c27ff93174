#!/usr/bin/env bats
# The start: what it is made of (MOONKILN_TIMELINE), what it leaves out when the kernels are there, a GPU that does not start.
# shellcheck disable=SC2154 # here, out: helper.bash

setup_file() {
  load helper
  make_models
}

# The kernels are compiled once for all of these tests.
setup() {
  load helper
  common
  need_nvrtc
  fake_driver
  kernels=$BATS_FILE_TMPDIR/kernels
  export MOONKILN_TIMELINE=on MOONKILN_CACHE=$kernels
  [ -e "$kernels" ] || on_gpu >/dev/null 2>&1
}

on_gpu() { generate "$BATS_FILE_TMPDIR/diffusers" --backend cuda --tune-budget 0 --out "$out/x.y4m" "$@"; }

@test "a timeline tells what the start is made of" {
  run on_gpu
  echo "$output"
  [ "$status" -eq 0 ]
  for what in main "driver loaded" "driver initialised" context "GPU ready" "umt5: graph" "wan_dit: candidates" "tuning records" \
    "umt5: launches ready" "first kernel launched, 0 compiled before" "wan_vae: next is launched" "GPU closed, 0 kernels compiled in all"; do
    grep -qE "^moonkiln: +[0-9]+\.[0-9] ms: $what" <<<"$output" || { echo "missing: $what"; return 1; }
  done
  [ "$(grep -c 'first kernel launched' <<<"$output")" -eq 1 ]
  [ "$(grep -c 'wan_dit: candidates' <<<"$output")" -le 2 ] # one plan for both experts, made again where cuBLASLt does not start
  [[ $output != *"NVRTC loaded"* ]] # all kernels are there
  MOONKILN_TIMELINE=off run on_gpu
  [[ $output != *" ms: "* ]]
  rm "$out/x.y4m"
  MOONKILN_TIMELINE=maybe refused on_gpu -- MOONKILN_TIMELINE maybe
}

@test "what NVRTC there is is looked for again when it may be another one" {
  looks_again() {
    run on_gpu
    [ "$status" -eq 0 ]
    [[ $output == *"NVRTC loaded"* && $output == *"0 kernels compiled in all"* ]] || { echo "$output"; return 1; }
    run on_gpu
    [[ $output != *"NVRTC loaded"* ]]
  }
  rm "$kernels/nvrtc" && looks_again
  touch -d "2 days ago" "$kernels/nvrtc" && looks_again
  sed -i 's/^.\{8\}/moonkiln/;2s/^.\{8\}/00000000/' "$kernels/nvrtc" && looks_again
  head -c 30 "$kernels/nvrtc" >"$here/half" && cp "$here/half" "$kernels/nvrtc" && looks_again
  chmod 666 "$kernels/nvrtc" && looks_again
  CUDA_HOME=$here looks_again
}

@test "another size needs no other kernels, though nothing was measured" {
  export MOONKILN_LOG=info
  on_gpu --size 96x96 --frames 9
  run on_gpu --size 160x96 --frames 5
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$(grep -c 'kernels: .* 0 compiled' <<<"$output")" -ge 3 ]
  ! grep -qE 'kernels: .* [1-9][0-9]* compiled' <<<"$output" || false
  grep -q '[|] used - - ' "$kernels"/tuning/*.tune
  cp "$kernels"/tuning/*.tune "$here/before"
  on_gpu --size 160x96 --frames 5 --no-tune # neither reads nor notes
  on_gpu --size 160x96 --frames 5
  cmp "$kernels"/tuning/*.tune "$here/before"
}

@test "start_times.py makes a table of it" {
  local times=("${PYTHON:-python3}" scripts/start_times.py --moonkiln "$MOONKILN")
  run "${times[@]}" "$BATS_FILE_TMPDIR/diffusers" --sizes 32x32x5,64x32x5 --runs 1 --cache "$kernels"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "${#lines[@]}" -eq 4 ]
  [[ ${lines[0]} =~ ^\ +launch\ +text\ +weights\ +step\ +aside\ +compiled$ ]]
  [[ ${lines[1]} =~ ^32x32x5(\ +[0-9]+){6}$ && ${lines[2]} =~ ^64x32x5,\ first\ time(\ +[0-9]+){6}$ ]]
  [[ ${lines[3]} =~ ^64x32x5(\ +[0-9]+){5}\ +0$ ]]
  refused "${times[@]}" "$here/missing" --sizes 32x32x5 -- "moonkiln: " missing
  run "${times[@]}" tiny --sizes 32x32
  [[ $status -eq 2 && $output == *WIDTHxHEIGHTxFRAMES* ]]
}

@test "a GPU that does not start" {
  FAKE_CONTEXT=2 refused on_gpu -- "moonkiln: GPU 0 (Made-up GPU): cuDevicePrimaryCtxRetain" "made up"
  FAKE_INIT=999 refused on_gpu -- "cuInit(0) failed: made up"
  tensors write "$here/x.safetensors" 1 x=4x8
  echo 'output("y", input{name="x", shape={4, 8}}:exp())' >"$here/graph.lua"
  FAKE_CONTEXT=2 refused "$MOONKILN" run "$here/graph.lua" --backend cuda --inputs "$here/x.safetensors" -- "GPU 0 (Made-up GPU): cuDevice"
  FAKE_CONTEXT=2 refused "$MOONKILN" bench "$here/graph.lua" --inputs "$here/x.safetensors" -- "GPU 0 (Made-up GPU): cuDevice"
}

@test "a GPU that does not start leaves the CPU, unless it was asked for" {
  export FAKE_CONTEXT=2
  "$MOONKILN" generate "$BATS_FILE_TMPDIR/diffusers" --prompt "a cat" --size 32x32 --frames 5 --steps 2 --out "$out/a.safetensors"
  generate "$BATS_FILE_TMPDIR/diffusers" --out "$out/b.safetensors"
  cmp "$out/a.safetensors" "$out/b.safetensors"
  tensors write "$here/x.safetensors" 1 x=4x8
  echo 'output("y", input{name="x", shape={4, 8}}:exp())' >"$here/graph.lua"
  "$MOONKILN" run "$here/graph.lua" --inputs "$here/x.safetensors" --outputs "$out/y.safetensors"
}

@test "what is wrong with a later network ends the run" {
  model diffusers
  local file
  file=$(find "$here/model/vae" -name '*.safetensors' | head -n 1)
  name=$(tensors list "$file" | head -n 1 | cut -f1)
  cp "$file" "$here/copy" && mv "$here/copy" "$file"
  tensors drop "$file" "$name"
  refused generate "$here/model" --backend cuda --tune-budget 0 -- "$here/model/vae" "$name"
  [[ $output != *denoising* ]]
}
