#!/usr/bin/env bats
# Wrong input from outside: each gets a message that names the file or the field, a failing exit code, and leaves no file.
# shellcheck disable=SC2154 # here, out: helper.bash

setup_file() { load helper; make_models; }
setup() { load helper; common; }

dit=transformer_2/diffusion_pytorch_model.safetensors # the tiny checkpoint has it in one file
vae=vae/diffusion_pytorch_model.safetensors
block=blocks.0.attn1.to_q.weight

# ---- folders and files

@test "no such model folder" {
  refused generate "$here/nowhere" -- "$here/nowhere" "no such folder"
  refused generate "" -- "no such folder"
}

@test "a folder that is no model" {
  mkdir "$here/empty"
  refused generate "$here/empty" -- "$here/empty" "no model folder" model_index.json high_noise_model
  refused generate README.md -- README.md
}

@test "missing parts are listed together" {
  model diffusers
  rm -r "$here/model/vae" "$here/model/tokenizer/spiece.model"
  refused generate "$here/model" -- "$here/model" "missing: vae/, tokenizer/spiece.model"
}

@test "missing parts of the original layout" {
  model original
  rm -r "$here/model/low_noise_model" "$here/model/Wan2.1_VAE.safetensors"
  refused generate "$here/model" -- "missing: low_noise_model/, Wan2.1_VAE"
}

@test "a missing weights file" {
  model diffusers
  rm "$here/model/$vae"
  refused generate "$here/model" -- "$here/model/vae" ".safetensors"
}

@test "an index names a shard that is not there" {
  model diffusers
  rm "$here/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors"
  refused generate "$here/model" -- diffusion_pytorch_model.safetensors.index.json weight_map \
    diffusion_pytorch_model-00002-of-00003.safetensors "not there"
}

@test "an index names a tensor that its shard does not have" {
  model diffusers
  tensors drop "$here/model/text_encoder/model-00001-of-00002.safetensors" "$(tensors list \
    "$here/model/text_encoder/model-00001-of-00002.safetensors" | head -n 1 | cut -f 1)"
  refused generate "$here/model" -- model-00001-of-00002.safetensors "has no tensor" model.safetensors.index.json
}

@test "an index that leads out of its folder" {
  model diffusers
  local index=$here/model/transformer/diffusion_pytorch_model.safetensors.index.json
  sed 's#"diffusion_pytorch_model-00001#"../vae/diffusion_pytorch_model-00001#' "$index" >"$here/index" && mv "$here/index" "$index"
  refused generate "$here/model" -- diffusion_pytorch_model.safetensors.index.json "in the same folder"
}

# ---- what a safetensors file may do wrong

@test "a truncated file" {
  model diffusers
  head -c 100000 "$here/model/$dit" >"$here/short" && mv "$here/short" "$here/model/$dit"
  refused generate "$here/model" -- "$dit" truncated
}

@test "a file that ends within its header" {
  model diffusers
  head -c 100 "$here/model/$dit" >"$here/short" && mv "$here/short" "$here/model/$dit"
  refused generate "$here/model" -- "$dit" "header length" truncated
}

@test "an empty file" {
  model diffusers
  rm "$here/model/$dit"
  touch "$here/model/$dit"
  refused generate "$here/model" -- "$dit"
}

@test "an oversized header" {
  model diffusers
  rm "$here/model/$dit"
  printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' >"$here/model/$dit"
  refused generate "$here/model" -- "$dit" "header length 9223372036854775807"
  rm "$here/model/$dit"
  { printf '\0\0\0\x10\0\0\0\0{'; head -c 300000000 /dev/zero; } >"$here/model/$dit"
  refused generate "$here/model" -- "$dit" "100 MiB"
}

@test "a header that is not JSON" {
  model diffusers
  rm "$here/model/$dit"
  printf '\x08\0\0\0\0\0\0\0{"a": 1 ' >"$here/model/$dit"
  refused generate "$here/model" -- "$dit" header
}

@test "overlapping offsets" {
  model diffusers
  tensors set "$here/model/$dit" "$block" data_offsets "[0,65536]"
  refused generate "$here/model" -- "$dit" "$block" data_offsets overlaps
}

@test "offsets beyond the file" {
  model diffusers
  tensors set "$here/model/$dit" "$block" data_offsets "[99999000,99999999]"
  refused generate "$here/model" -- "$dit" "$block" data_offsets
}

@test "a dtype that does not fit the bytes" {
  model diffusers
  tensors set "$here/model/$dit" "$block" dtype F16
  refused generate "$here/model" -- "$dit" "$block" dtype F16
}

@test "a dtype that is not supported" {
  model diffusers
  tensors set "$here/model/$vae" decoder.conv_in.bias dtype U32
  refused generate "$here/model" -- "$vae" decoder.conv_in.bias U32
}

@test "whole numbers where weights are expected" {
  model diffusers
  tensors set "$here/model/$dit" "$block" dtype I32
  refused generate "$here/model" -- transformer_2 "$block" "whole numbers"
}

@test "a wrong shape" {
  model diffusers
  tensors set "$here/model/$dit" "$block" shape "[64,256]"
  refused generate "$here/model" -- "$dit" "$block" "[128, 128]" "[64, 256]"
}

@test "a wrong shape in the decoder, found before any work" {
  model diffusers
  tensors set "$here/model/$vae" decoder.conv_in.bias shape "[1,32]"
  refused generate "$here/model" -- "$vae" decoder.conv_in.bias "[1, 32]"
  [[ $output != *denoising* ]]
}

@test "a missing tensor" {
  model diffusers
  tensors drop "$here/model/$dit" "$block"
  refused generate "$here/model" -- transformer_2 "$block"
}

@test "a missing tensor of the decoder" {
  model original
  tensors drop "$here/model/Wan2.1_VAE.safetensors" decoder.conv1.bias
  refused generate "$here/model" -- Wan2.1_VAE.safetensors decoder.conv1.bias
}

# ---- JSON and other small files of a model

@test "malformed JSON" {
  for file in model_index.json transformer/config.json scheduler/scheduler_config.json vae/config.json \
    text_encoder/model.safetensors.index.json; do
    rm -rf "$here/model"
    model diffusers
    head -c 40 "$here/model/$file" >"$here/short" && mv "$here/short" "$here/model/$file"
    refused generate "$here/model" -- "$file"
  done
}

@test "fields of a configuration that make no sense" {
  while read -r file from to word; do
    rm -rf "$here/model"
    model diffusers
    sed "s#$from#$to#" "$here/model/$file" >"$here/edited" && mv "$here/edited" "$here/model/$file"
    refused generate "$here/model" -- "$word"
  done <<'END'
transformer/config.json "num_layers":.* "num_layers":-3, num_layers
transformer/config.json "ffn_dim":.* "ffn_dim":"wide", ffn_dim
transformer/config.json "num_attention_heads":.* "num_attention_heads":1e300, num_heads
model_index.json "boundary_ratio":.* "boundary_ratio":"none", boundary_ratio
model_index.json WanPipeline FluxPipeline _class_name
scheduler/scheduler_config.json "flow_shift":.* "flow_shift":-1, flow_shift
END
}

@test "defaults of a model that make no sense" {
  model diffusers
  while read -r content words; do
    echo "$content" >"$here/model/moonkiln.json"
    # shellcheck disable=SC2086 # words are apart
    refused "$MOONKILN" generate "$here/model" --prompt cat --backend cpu --out "$out/x.mp4" -- moonkiln.json $words
  done <<'END'
{"size":1} size width
{"width":100,"height":96} 100x96 16
{"frames":16} 4n
{"grid":"square"} square
{"negative":5} negative string
[] object
END
}

@test "a tokenizer that is none" {
  model diffusers
  rm "$here/model/tokenizer/spiece.model"
  echo "no model" >"$here/model/tokenizer/spiece.model"
  refused generate "$here/model" -- tokenizer/spiece.model
}

# ---- options

@test "no model, no prompt, unknown options" {
  refused "$MOONKILN" generate --prompt cat --out "$out/x.mp4" -- "model's folder"
  refused "$MOONKILN" generate "$BATS_FILE_TMPDIR/diffusers" --out "$out/x.mp4" -- prompt
  refused generate "$BATS_FILE_TMPDIR/diffusers" --wideness 3 -- --wideness
  refused generate "$BATS_FILE_TMPDIR/diffusers" --steps -- --steps
  refused generate "$BATS_FILE_TMPDIR/diffusers" another -- "too many"
  refused "$MOONKILN" paint -- paint
}

@test "size" {
  for size in 100x64 64x100 0x64 -64x64 64x0 64 64x x64 64x64x64 1e3x64 999999999999x16 64.5x64 0x0 17x17 axb; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" "--size=$size" -- size
  done
}

@test "frames" {
  for frames in 0 -3 2 4 6 80 1.5 five 1e9 99999999999999999999; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" "--frames=$frames" -- frames
  done
}

@test "steps" {
  for steps in 0 -1 1001 99999999999999999999 2.5 many; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" "--steps=$steps" -- steps
  done
}

@test "guidance" {
  for guidance in -1 1001 nan inf strong 3,4,5 '3,' ,3 3,-4; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" "--guidance=$guidance" -- guidance
  done
}

@test "seed" {
  for seed in -1 1.5 lucky 99999999999999999999 0x; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" "--seed=$seed" -- seed
  done
}

@test "shift, fps, and names" {
  for option in shift=0 shift=-3 shift=nan shift=1e9 fps=0 fps=fast sampler=heun rng=dice backend=tpu grid=square policy=int1; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" "--$option" -- "${option%%=*}"
  done
}

@test "a size that no machine can hold" {
  if grep -q __asan_init "$MOONKILN"; then skip "the address sanitizer needs all of the address space"; fi
  little_memory() {
    ulimit -v $((8 << 20)) # in case this one can
    generate "$BATS_FILE_TMPDIR/diffusers" --size 16384x16384 --frames 4093
  }
  refused little_memory -- "out of host memory"
}

@test "a prompt that is not UTF-8" {
  refused generate "$BATS_FILE_TMPDIR/diffusers" --prompt "$(printf 'a c\xffat')" -- prompt UTF-8
  refused generate "$BATS_FILE_TMPDIR/diffusers" --negative "$(printf 'overlong \xc0\xaf')" -- negative UTF-8
  refused generate "$BATS_FILE_TMPDIR/diffusers" --prompt "$(printf 'half a pair \xed\xa0\x80')" -- prompt UTF-8
}

# ---- Lua graphs

# script TEXT...: the lines as a graph, in $here/graph.lua.
script() { printf '%s\n' "$@" >"$here/graph.lua"; }
graph() { "$MOONKILN" run "$here/graph.lua" --backend cpu --outputs "$out/y.safetensors" "$@"; }

@test "a script that is not there, or nothing" {
  refused "$MOONKILN" run "$here/none.lua" -- "$here/none.lua"
  script "-- nothing"
  refused graph -- graph.lua "no output"
}

@test "a syntax error" {
  script 'local x = input{name="x", shape={2}}' 'output("y", x +)'
  refused graph -- "graph.lua:2"
}

@test "an endless loop" {
  script "" "while true do end"
  refused graph -- "graph.lua:2" endless
}

@test "huge allocations" {
  script 'local s = ("x"):rep(1 << 40)'
  refused graph -- "graph.lua:1" memory
  script "local t = {}" "for i = 1, 1 << 40 do t[i] = { i } end"
  refused graph -- "graph.lua:2" memory
  script 'output("y", input{name="x", shape={1 << 30, 1 << 30}} + 1)'
  refused graph -- "graph.lua:1" "[1073741824, 1073741824]" "2^40 elements"
}

@test "forbidden functions" {
  for call in 'io.open("/etc/passwd")' 'os.execute("true")' 'require("os")' 'load("return 1")' 'dofile("x.lua")' \
    'loadfile("x.lua")' 'debug.getregistry()' 'string.dump(print)' 'package.loadlib("x")' 'coroutine.create(print)' \
    'math.random()' 'collectgarbage()' 'setmetatable({}, { __gc = 1 })'; do
    script "" "local x = $call"
    refused graph -- "graph.lua:2"
  done
  script 'include "../secret.lua"'
  refused graph -- "graph.lua:1" "own folder"
}

@test "a shape mismatch shows the line" {
  script 'local x = input{name="x", shape={4, 8}}' 'local w = weight("w", {16, 9})' 'output("y", matmul(x, w))'
  refused graph -- "graph.lua:3" "[4, 8]" "[16, 9]"
  script 'local x = input{name="x", shape={4, 8}}' 'output("y", x + input{name="z", shape={3, 8}})'
  refused graph -- "graph.lua:2" "[4, 8]" "[3, 8]"
}

@test "a weight of another shape shows the line, the tensor and the file" {
  tensors write "$here/w.safetensors" 1 w=16x9
  script 'local x = input{name="x", shape={4, 8}}' 'output("y", matmul(x, weight("w", {16, 8})))'
  refused graph --weights "$here/w.safetensors" -- "graph.lua:2" "weight 'w'" "[16, 8]" "[16, 9]" "$here/w.safetensors"
  script 'local x = input{name="x", shape={4, 8}}' 'output("y", matmul(x, weight("v", {16, 8})))'
  refused graph --weights "$here/w.safetensors" -- "graph.lua:2" "weight 'v'"
  refused graph --weights "$here/none.safetensors" -- "$here/none.safetensors"
}

@test "weights that nobody gave" {
  script 'local x = input{name="x", shape={4, 8}}' 'output("y", matmul(x, weight("w", {16, 8})))'
  tensors write "$here/x.safetensors" 1 x=4x8
  refused graph --inputs "$here/x.safetensors" -- w
}

@test "inputs that are missing or of another shape" {
  script 'output("y", input{name="x", shape={4, 8}} + 1)'
  refused graph -- "'x'" --inputs
  tensors write "$here/x.safetensors" 1 z=4x8
  refused graph --inputs "$here/x.safetensors" -- "$here/x.safetensors" "'x'"
  tensors write "$here/x.safetensors" 1 x=8x4
  refused graph --inputs "$here/x.safetensors" -- "$here/x.safetensors" x "[8, 4]" "[4, 8]"
  refused graph --inputs "$here/none.safetensors" -- "$here/none.safetensors"
  tensors write "$here/x.safetensors" 1 x=4x8
  refused graph --inputs "$here/x.safetensors" --entry other -- other
}

@test "parameters" {
  script 'output("y", input{name="x", shape={params.n * 2}} + 1)'
  refused graph -- "graph.lua:1"
  refused graph --set n -- "--set n"
  refused graph --set 'n={"a":' -- "--set n" JSON
  refused graph --set "n=@$here/none.json" -- "$here/none.json"
  echo '{"n": ' >"$here/bad.json"
  refused graph --set "n=@$here/bad.json" -- "$here/bad.json" JSON
  refused graph --set "$(printf 'n=\xff')" -- "--set n" UTF-8
}

@test "stages, targets and kernels that do not exist" {
  script 'output("y", input{name="x", shape={4}} + 1)'
  refused "$MOONKILN" emit "$here/graph.lua" --stage soup -- soup
  refused "$MOONKILN" emit "$here/graph.lua" --arch sm_1 -- sm_1
  refused "$MOONKILN" emit "$here/graph.lua" --stage cuda --kernel none -- none
  refused "$MOONKILN" compile "$here/graph.lua" --arch sm_80,sm_8 -- sm_8
  refused "$MOONKILN" compile "$here/nowhere" -- "$here/nowhere"
}

# ---- where nothing can be written

@test "an output folder that is not there or not writable" {
  local no=$here/readonly
  mkdir -m 500 "$no"
  ((EUID)) || no=/proc # nothing else stops root
  for place in "$here/nowhere" "$no" "$BATS_FILE_TMPDIR/diffusers/model_index.json"; do
    for kind in mp4 y4m safetensors; do
      refused generate "$BATS_FILE_TMPDIR/diffusers" --out "$place/x.$kind" -- "$place/x.$kind"
      [[ $output != *denoising* ]]
    done
  done
  refused generate "$BATS_FILE_TMPDIR/diffusers" --out "$out" -- "$out"
  refused generate "$BATS_FILE_TMPDIR/diffusers" --out "$out/x.gif" -- "$out/x.gif" mp4 y4m safetensors
  script 'output("y", input{name="x", shape={4, 8}} + 1)'
  tensors write "$here/x.safetensors" 1 x=4x8
  refused graph --inputs "$here/x.safetensors" --outputs "$no/y.safetensors" -- "$no/y.safetensors"
}

@test "a full disk: the device that is always full" {
  ln -s /dev/full "$here/full.y4m"
  ln -s /dev/full "$here/full.safetensors"
  refused generate "$BATS_FILE_TMPDIR/diffusers" --out "$here/full.y4m" -- full.y4m "No space left"
  refused generate "$BATS_FILE_TMPDIR/diffusers" --out "$here/full.safetensors" -- full.safetensors "No space left"
}

@test "a full disk: files may not grow" {
  limited() {
    trap '' XFSZ # the signal would end the program, its being ignored makes write fail
    ulimit -f 4
    generate "$BATS_FILE_TMPDIR/diffusers" --size 64x64 --out "$out/x.$1"
  }
  for kind in mp4 y4m safetensors; do refused limited "$kind" -- "$out/x.$kind" "File too large"; done
}

@test "a full disk: a small file system" {
  if ((EUID)) || ! mount -t tmpfs -o size=16k tmpfs "$out" 2>/dev/null; then skip "mounting is not allowed here"; fi
  for kind in mp4 y4m safetensors; do
    refused generate "$BATS_FILE_TMPDIR/diffusers" --size 64x64 --out "$out/x.$kind" -- "$out/x.$kind" "No space left"
  done
  umount "$out"
}

teardown() { umount "${out:-/nowhere}" 2>/dev/null || true; }

@test "a cache folder that cannot be written: the compiler says so, and fails" {
  need_nvrtc
  script 'output("y", input{name="x", shape={4, 8}}:exp())'
  MOONKILN_CACHE=/proc/nowhere refused "$MOONKILN" compile "$here/graph.lua" -- /proc/nowhere MOONKILN_CACHE
  if ((EUID)) || ! mount -t tmpfs -o size=4k tmpfs "$out" 2>/dev/null; then skip "mounting is not allowed here"; fi
  chmod 700 "$out"
  MOONKILN_CACHE=$out run "$MOONKILN" compile "$here/graph.lua"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == *"$out"* && $output == *"No space left"* ]]
  [[ -z $(find "$out" -type f -size +0 ! -name nvrtc) ]]
}

@test "a corrupted cache entry is named and compiled again" {
  need_nvrtc
  script 'output("y", input{name="x", shape={4, 8}}:exp())'
  "$MOONKILN" compile "$here/graph.lua"
  local entry
  entry=$(find "$MOONKILN_CACHE/cubin" -type f -path '*/cubin/??/*')
  printf 'X' | dd of="$entry" bs=1 seek=200 conv=notrunc status=none
  run "$MOONKILN" cache verify
  [ "$status" -eq 1 ]
  [[ $output == *"damaged: $entry"* ]]
  run "$MOONKILN" compile "$here/graph.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"$entry is damaged and is compiled again"* && $output == *"1 compiled, 0 failed"* ]]
  : >"$entry"
  run "$MOONKILN" compile "$here/graph.lua"
  [ "$status" -eq 0 ]
  [[ $output == *"1 compiled, 0 failed"* ]]
  run "$MOONKILN" cache verify
  [ "$status" -eq 0 ]
}

@test "a program without its scripts" {
  cp "$MOONKILN" "$here/moonkiln"
  export MOONKILN_DATA=
  MOONKILN=$here/moonkiln refused generate "$BATS_FILE_TMPDIR/diffusers" -- "moonkiln: the folder with scripts/" MOONKILN_DATA
  MOONKILN_DATA=$here refused generate "$BATS_FILE_TMPDIR/diffusers" -- MOONKILN_DATA "$here"
}

# ---- no GPU, no compiler

@test "no NVRTC" {
  script 'output("y", input{name="x", shape={4, 8}}:exp())'
  mkdir "$here/toolkit"
  MOONKILN_CUDA=$here/toolkit refused "$MOONKILN" compile "$here/graph.lua" -- NVRTC libnvrtc.so "$here/toolkit"
}

@test "no GPU" {
  refused generate "$BATS_FILE_TMPDIR/diffusers" --backend cuda -- NVIDIA
  script 'output("y", input{name="x", shape={4, 8}}:exp())'
  tensors write "$here/x.safetensors" 1 x=4x8
  refused graph --backend cuda --inputs "$here/x.safetensors" -- NVIDIA
  refused "$MOONKILN" bench "$here/graph.lua" -- NVIDIA
  refused "$MOONKILN" bench "$here/graph.lua" --inputs "$here/none.safetensors" -- "$here/none.safetensors"
  fake_driver
  FAKE_INIT=100 refused generate "$BATS_FILE_TMPDIR/diffusers" --backend cuda -- "no GPU"
}

@test "too old a driver, too old a GPU" {
  fake_driver
  FAKE_VERSION=11040 refused generate "$BATS_FILE_TMPDIR/diffusers" --backend cuda -- "CUDA 11.4" "12.0 or newer" update
  FAKE_ARCH=75 refused generate "$BATS_FILE_TMPDIR/diffusers" --backend cuda -- "7.5" "8.0"
}

@test "too little GPU memory is said before anything is loaded, with what is needed" {
  fake_driver
  FAKE_FREE_MIB=1 refused generate "$BATS_FILE_TMPDIR/diffusers" --backend cuda -- "text encoder" "not enough GPU memory" needed "1.0 MiB of 48.0 GiB free"
  [[ $output != *loading* ]]
  FAKE_FREE_MIB=40960 refused "$MOONKILN" generate --synthetic 1 --prompt cat --backend cuda --out "$out/x.mp4" \
    -- "transformer: not enough GPU memory" weights scratch --offload "40.0 GiB of 48.0 GiB free"
  script 'output("y", input{name="x", shape={1 << 15, 1 << 15}}:exp())'
  FAKE_FREE_MIB=1000 refused graph --backend cuda -- "not enough GPU memory" "inputs and outputs"
}
