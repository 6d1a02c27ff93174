#!/usr/bin/env bats
# The main job on the CPU, seen from outside: a prompt goes in, a file comes out. And run, emit and compile on small graphs.
# shellcheck disable=SC2154 # here, out: helper.bash

setup_file() { load helper; make_models; }
setup() { load helper; common; }

diffusers() { generate "$BATS_FILE_TMPDIR/diffusers" "$@"; }

# probe FILE: width, height, frames a second, frames that can be decoded.
probe() {
  ffprobe -v error -count_frames -select_streams v:0 -show_entries stream=width,height,r_frame_rate,nb_read_frames -of csv=p=0 "$1"
}

# alone FILE: it is all there is in the output folder.
alone() {
  local found
  found=$(find "$out" -mindepth 1)
  echo "$found"
  [ "$found" = "$1" ]
}

@test "an mp4 file of the right size, frame count and rate" {
  diffusers --size 48x32 --frames 9
  [ "$(probe "$out/x.mp4")" = "48,32,16/1,9" ]
  alone "$out/x.mp4"
  diffusers --fps 24 --frames 1
  [ "$(probe "$out/x.mp4")" = "32,32,24/1,1" ]
}

@test "a y4m file, and one through a pipe" {
  diffusers --size 48x32 --out "$out/x.y4m"
  [[ $(head -n 1 "$out/x.y4m") == "YUV4MPEG2 W48 H32 F16:1"* ]]
  [ "$(probe "$out/x.y4m")" = "48,32,16/1,5" ]
  alone "$out/x.y4m"
}

@test "a safetensors file holds frames and latents" {
  diffusers --size 48x32 --out "$out/x.safetensors"
  run tensors list "$out/x.safetensors"
  [[ $output == *"frames	F32	[5,32,48,3]"* ]]
  [[ $output == *"latents	F32	[16,2,4,6]"* ]]
  alone "$out/x.safetensors"
}

# sheet FILE CLIP: the picture shows frames 0, 1, ... of a clip of 5 frames of 48x32 in three columns, in the video's 8 bits.
sheet() {
  ffmpeg -v error -i "$1" -f rawvideo -pix_fmt rgb24 "$here/sheet.rgb"
  python3 - "$here/sheet.rgb" "$2" <<'PY'
import json, struct, sys
sheet, clip = (open(path, "rb").read() for path in sys.argv[1:])
length, = struct.unpack_from("<Q", clip)
begin, end = json.loads(clip[8:8 + length])["frames"]["data_offsets"]
frames = [min(255, max(0, int((x + 1) * 127.5))) for x in struct.unpack("<%df" % ((end - begin) // 4), clip[8 + length + begin:8 + length + end])]
width, height, gap, row = 48, 32, 2, 3 * (3 * 50 + 2)
assert len(sheet) == row * (2 * 34 + 2), len(sheet)
for f in range(5):
    for y in range(height):
        at = row * (gap + f // 3 * (height + gap) + y) + 3 * (gap + f % 3 * (width + gap))
        shown, drawn = sheet[at:at + 3 * width], frames[3 * width * (f * height + y):3 * width * (f * height + y + 1)]
        assert max(abs(a - b) for a, b in zip(shown, drawn)) <= 1, (f, y)  # one: these numbers are not floats
PY
}

@test "a contact sheet shows the clip's frames, beside the video" {
  diffusers --size 48x32 --out "$out/x.safetensors" --sheet "$out/x.png"
  [ "$(find "$out" -mindepth 1 | sort)" = "$(printf '%s\n' "$out/x.png" "$out/x.safetensors")" ]
  sheet "$out/x.png" "$out/x.safetensors"
  diffusers --size 48x32 --out "$here/alone.png"
  cmp "$here/alone.png" "$out/x.png"
  run diffusers --size 48x32 --sheet "$out/x.png"
  [[ $output == *"$out/x.mp4, $out/x.png: 5 frames"* ]]
}

@test "a contact sheet that cannot be is refused before any work" {
  refused diffusers --sheet "$here/nowhere/x.png" -- "$here/nowhere/x.png" "make the folder first"
  refused diffusers --sheet "$out/x.jpg" -- "sheet '$out/x.jpg'" .png
  refused diffusers --out "$out/x.png" --sheet "$out/../out/x.png" -- "sheet $out/../out/x.png" "different names"
  ln -s "$here/target.mp4" "$here/link.png"
  touch "$here/target.mp4"
  refused diffusers --out "$here/target.mp4" --sheet "$here/link.png" -- "different names"
}

@test "without FFmpeg's libraries: y4m in place of mp4, and no contact sheet" {
  local version
  for version in {50..70}; do echo "no library" >"$here/libavutil.so.$version"; done
  export LD_LIBRARY_PATH=$here
  run diffusers
  [ "$status" -eq 0 ]
  [[ $output == *"no .mp4 can be written"*libavutil.so*"writing $out/x.y4m instead"* ]]
  alone "$out/x.y4m"
  rm "$out/x.y4m"
  refused diffusers --out "$out/x.y4m" --sheet "$out/x.png" -- "cannot write $out/x.png" libavutil.so "install FFmpeg's libraries"
}

@test "a link stays a link, and an older file is replaced" {
  echo old >"$here/target.y4m"
  ln -s "$here/target.y4m" "$out/x.y4m"
  diffusers --out "$out/x.y4m"
  [ -L "$out/x.y4m" ]
  [[ $(head -c 9 "$here/target.y4m") == YUV4MPEG2 ]]
}

# below LIMIT DISTANCE
below() {
  echo "distance $2, at most $1"
  awk -v limit="$1" -v d="$2" 'BEGIN { exit !(d <= limit) }'
}

@test "the whole path gives what the peers' pipeline gives" {
  local vectors=tests/vectors/pipeline_io.safetensors
  for layout in diffusers original; do
    "$MOONKILN" generate "$BATS_FILE_TMPDIR/$layout" --backend cpu --size 48x32 --frames 5 --steps 4 --shift 3 --grid diffusers --seed 42 \
      --guidance 3,4 --prompt "a cat and a dog bake a cake in the kitchen,  slow camera move, 白色的猫" \
      --negative "static, blurry, 低质量" --out "$out/$layout.safetensors"
    below 1e-4 "$(tensors distance "$out/$layout.safetensors" latents $vectors s3.latents@3)"
    below 1e-4 "$(tensors distance "$out/$layout.safetensors" frames:unit $vectors s3.frames 2,3,4,1)"
  done
  "$MOONKILN" generate "$BATS_FILE_TMPDIR/diffusers" --backend cpu --size 48x32 --frames 5 --steps 4 --shift 12 --grid diffusers --seed 42 \
    --guidance 3,4 --prompt "a cat and a dog bake a cake in the kitchen,  slow camera move, 白色的猫" \
    --negative "static, blurry, 低质量" --out "$out/x.safetensors"
  below 1e-4 "$(tensors distance "$out/x.safetensors" latents $vectors s12.latents@3)"
}

@test "a model's own defaults, and a Diffusers folder's shift on Diffusers' grid" {
  model diffusers
  echo '{"width": 48, "height": 32, "frames": 9, "fps": 8, "grid": "diffusers", "negative": ""}' >"$here/model/moonkiln.json"
  own() { "$MOONKILN" generate "$here/model" --prompt "a cat" --backend cpu --steps 2 "$@"; }
  run own --out "$out/a.y4m"
  [[ $output == *"9 frames, 48x32"* ]]
  [[ $(head -n 1 "$out/a.y4m") == "YUV4MPEG2 W48 H32 F8:1"* ]]
  diffusers --size 48x32 --frames 9 --fps 8 --grid diffusers --shift 3 --negative "" --out "$out/b.y4m"
  cmp "$out/a.y4m" "$out/b.y4m"
  diffusers --size 48x32 --frames 9 --fps 8 --grid diffusers --negative "" --out "$out/b.y4m"
  cmp "$out/a.y4m" "$out/b.y4m"
  diffusers --size 48x32 --frames 9 --fps 8 --out "$out/c.y4m"
  ! cmp -s "$out/a.y4m" "$out/c.y4m" || false
  own --grid original --negative "$(sed -n '/mk_default_negative_prompt/,/;/s/^ *"\(.*\)".*/\1/p' runtime/model/text_clean.c | tr -d '\n')" --out "$out/d.y4m"
  cmp "$out/c.y4m" "$out/d.y4m"
}

@test "a seed gives the same bits again, another one others, both layouts the same" {
  diffusers --seed 7 --out "$out/a.y4m"
  diffusers --seed 7 --out "$out/b.y4m"
  cmp "$out/a.y4m" "$out/b.y4m"
  diffusers --seed 8 --out "$out/c.y4m"
  ! cmp -s "$out/a.y4m" "$out/c.y4m" || false
  diffusers --seed 7 --rng cuda --out "$out/d.y4m"
  ! cmp -s "$out/a.y4m" "$out/d.y4m" || false
  generate "$BATS_FILE_TMPDIR/original" --seed 7 --out "$out/e.y4m"
  cmp "$out/a.y4m" "$out/e.y4m"
}

@test "prompt and negative prompt matter; without guidance the negative one does not" {
  diffusers --out "$out/a.y4m"
  diffusers --prompt "a dog" --out "$out/b.y4m"
  ! cmp -s "$out/a.y4m" "$out/b.y4m" || false
  diffusers --negative "blurry" --out "$out/c.y4m"
  ! cmp -s "$out/a.y4m" "$out/c.y4m" || false
  diffusers --guidance 1 --negative "" --out "$out/d.y4m"
  diffusers --guidance 1 --negative "blurry" --out "$out/e.y4m"
  cmp "$out/d.y4m" "$out/e.y4m"
  ! cmp -s "$out/a.y4m" "$out/d.y4m" || false
}

@test "empty and very long prompts" {
  diffusers --prompt ""
  run diffusers --prompt "$(printf 'a cat %.0s' {1..600})"
  [ "$status" -eq 0 ]
  [[ $output == *"the prompt is longer than 512 tokens"* ]]
}

@test "samplers" {
  diffusers --steps 3 --out "$out/unipc.y4m"
  for sampler in euler dpm++ unipc; do
    diffusers --steps 3 --sampler $sampler --out "$out/this.y4m"
    if [ $sampler = unipc ]; then
      cmp "$out/unipc.y4m" "$out/this.y4m"
    else
      ! cmp -s "$out/unipc.y4m" "$out/this.y4m" || false
    fi
  done
}

@test "one expert at a time gives the same bits" {
  diffusers --steps 4 --shift 3 --out "$out/a.y4m"
  diffusers --steps 4 --shift 3 --offload --out "$out/b.y4m"
  cmp "$out/a.y4m" "$out/b.y4m"
}

@test "a model with one expert" {
  model original
  mkdir "$here/single"
  mv "$here/model/low_noise_model"/* "$here/model/google" "$here/model"/*.safetensors "$here/single"
  generate "$here/single"
  [ "$(probe "$out/x.mp4")" = "32,32,16/1,5" ]
}

# interrupted PHASE [OPTION]...: SIGINT once the phase has begun; the program ends by itself, says so and leaves nothing.
interrupted() {
  local phase=$1 pid code=0
  shift
  "$MOONKILN" generate "$BATS_FILE_TMPDIR/diffusers" --prompt cat --backend cpu "$@" --out "$out/x.mp4" 2>"$here/errors" &
  pid=$!
  until grep -q "$phase" "$here/errors" || ! kill -0 $pid; do sleep 0.05; done # its progress line, however long that takes
  kill -INT $pid || true
  wait $pid || code=$?
  cat "$here/errors"
  [ $code -eq 130 ]
  grep -q "moonkiln: stopped while $phase" "$here/errors"
  [[ -z $(find "$out" -mindepth 1) ]]
}

@test "Ctrl-C while denoising and while decoding" {
  interrupted denoising --size 64x64 --frames 5 --steps 1000
  interrupted decoding --size 128x128 --frames 401 --steps 1 --sheet "$out/x.png"
}

@test "a progress line for each phase" {
  run diffusers
  [ "$status" -eq 0 ]
  for word in "denoising" "decoding" "$out/x.mp4" "5 frames"; do [[ $output == *"$word"* ]]; done
}

# ---- any graph

gpt_weights() {
  tensors write "$here/w.safetensors" 1 ln_1.weight=64 ln_1.bias=64 ln_2.weight=64 ln_2.bias=64 attn.c_attn.weight=192x64 \
    attn.c_attn.bias=192 attn.c_proj.weight=64x64 attn.c_proj.bias=64 mlp.c_fc.weight=256x64 mlp.c_fc.bias=256 \
    mlp.c_proj.weight=64x256 mlp.c_proj.bias=64
  tensors write "$here/x.safetensors" 2 x=13x64
}

# graph NAME OUTPUT [OPTION]...: an experiment on the CPU.
graph() {
  "$MOONKILN" run "scripts/experiments/$1.lua" --backend cpu --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/$2.safetensors" "${@:3}"
}

@test "run: a GPT block, in two precisions" {
  gpt_weights
  graph gpt_block a --set tokens=13 --set dim=64 --set heads=2 --set policy=f32
  [ "$(tensors list "$out/a.safetensors")" = "y	F32	[13,64]" ]
  graph gpt_block b --set tokens=13 --set dim=64 --set heads=2
  local distance
  distance=$(tensors distance "$out/b.safetensors" y "$out/a.safetensors" y)
  below 0.02 "$distance"
  [ "$distance" != 0 ]
}

@test "run: a gated MLP, whose residual alone is left when its last matrix is zero" {
  tensors write "$here/w.safetensors" 1 norm.weight=32 gate.weight=80x32 up.weight=80x32 down.weight=32x80
  tensors write "$here/x.safetensors" 2 x=7x32
  graph swiglu_mlp a --set tokens=7 --set dim=32 --set hidden=80
  local distance
  distance=$(tensors distance "$out/a.safetensors" y "$here/x.safetensors" x)
  [ "$distance" != 0 ]
  tensors drop "$here/w.safetensors" down.weight
  head -c 10240 /dev/zero >"$here/zeros"
  { lua5.4 -e 'local h = [[{"down.weight":{"dtype":"F32","shape":[32,80],"data_offsets":[0,10240]}} ]]
      h = h .. (" "):rep(-#h % 8) io.write(string.pack("<I8", #h), h)'; cat "$here/zeros"; } >"$here/zero.safetensors"
  graph swiglu_mlp b --set tokens=7 --set dim=32 --set hidden=80 --weights "$here/zero.safetensors"
  [ "$(tensors distance "$out/b.safetensors" y "$here/x.safetensors" x)" = 0 ]
}

# The Wan transformer at the tiny checkpoint's sizes.
dit() {
  "$MOONKILN" "$1" scripts/models/wan_dit.lua --weights "$BATS_FILE_TMPDIR/diffusers/transformer_2" \
    --set "config=@$BATS_FILE_TMPDIR/diffusers/transformer_2/config.json" --set frames=2 --set height=4 --set width=6 --set steps=2 "${@:2}"
}

@test "emit shows every stage, the same text each time" {
  dit emit --stage ir >"$out/ir"
  grep -q "blocks.0.attn1.to_q.weight" "$out/ir"
  grep -q "attention" "$out/ir"
  dit emit --stage groups >"$out/groups"
  grep -q "row" "$out/groups"
  dit emit --stage plan >"$out/plan"
  grep -q "attention" "$out/plan"
  dit emit --stage cuda >"$out/cuda"
  grep -q "extern \"C\" __global__" "$out/cuda"
  [ "$(grep -c '^#include' "$out/cuda")" -eq 0 ]
  for stage in ir groups plan cuda; do dit emit --stage $stage | cmp - "$out/$stage"; done
}

@test "emit: what the compiler makes of a kernel" {
  "$MOONKILN" info | grep -q '^NVRTC *[0-9]' || skip "no NVRTC"
  run "$MOONKILN" emit scripts/experiments/swiglu_mlp.lua --stage sass-report
  [ "$status" -eq 0 ]
  [[ $output == *"row_norm_256"*"registers="*"spill=0"* ]]
  run "$MOONKILN" emit scripts/experiments/swiglu_mlp.lua --stage ptx --kernel row_norm
  [ "$status" -eq 0 ]
  [[ $output == *".target sm_90a"* ]]
  run "$MOONKILN" emit scripts/experiments/swiglu_mlp.lua --stage ptx --kernel absent
  [ "$status" -eq 2 ]
  [[ $output == *"--kernel absent"* ]]
}

@test "emit: another resolution is the same code" {
  dit emit --stage cuda >"$out/small"
  dit emit --stage cuda --set frames=3 --set height=20 --set width=30 | cmp - "$out/small"
}

@test "compile: a second time compiles nothing" {
  need_nvrtc
  run "$MOONKILN" compile scripts/experiments/swiglu_mlp.lua --arch sm_80,sm_90a
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *" 0 from the cache, "* && $output != *" 0 compiled"* && $output == *" 0 failed, 0 with spills" ]]
  run "$MOONKILN" compile scripts/experiments/swiglu_mlp.lua --arch sm_80,sm_90a
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *" 0 compiled, 0 failed"* ]]
  run "$MOONKILN" cache verify
  [ "$status" -eq 0 ]
}

@test "help for every command" {
  run "$MOONKILN" --help
  [ "$status" -eq 0 ]
  for command in generate run emit compile bench profile cache info; do
    [[ $output == *"$command"* ]]
    "$MOONKILN" $command --help | grep -q "^usage: moonkiln $command"
  done
  run "$MOONKILN"
  [ "$status" -eq 2 ]
}
