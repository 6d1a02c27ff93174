#!/usr/bin/env bats
# The pocket model on the CPU: its clips show what their prompts say and are those of Diffusers' pipeline. And their judge, on clips
# drawn here.
# shellcheck disable=SC2016,SC2030,SC2031,SC2154 # here, status, output: helper.bash and bats

setup_file() {
  load helper
  make_models
}

MODEL=${POCKET_MODEL:-scripts/pocket/model}

setup() {
  load helper
  common
  local python
  for python in ${PYTHON:-python3 /usr/bin/python3}; do
    if "$python" -c 'import numpy' 2>/dev/null; then PYTHON=$python && break; fi
  done
  "${PYTHON:=python3}" -c 'import numpy' # scripts/setup.sh installs it
  export PYTHONDONTWRITEBYTECODE=1
}

trained() { [[ -e $MODEL/model_index.json ]] || skip "there is no trained model yet"; }

# The five prompts that the README offers.
prompts() { sed -n 's/^- `\(an\? .*\)`$/\1/p' README.md; }

# clip FILE PROMPT [OPTION]...: with the model's own settings. A few steps are enough for a test.
clip() {
  "$MOONKILN" generate "$MODEL" --prompt "$2" --backend cpu --steps 20 --out "$1" "${@:3}" 2>"$here/log" || { cat "$here/log"; return 1; }
}

@test "the checkpoint is small" {
  trained
  local bytes
  bytes=$(find "$MODEL" -type f -printf '%s\n' | awk '{ n += $1 } END { print n }')
  echo "$bytes bytes"
  ((bytes <= 16000000))
}

@test "clips of the README's prompts are right, and wrong by each other's" {
  trained
  local all i
  mapfile -t all < <(prompts)
  [ "${#all[@]}" = 5 ]
  for i in "${!all[@]}"; do
    clip "$here/$i.safetensors" "${all[i]}"
    printf '%s\t%s\n' "$here/$i.safetensors" "${all[i]}" >>"$here/right"
    printf '%s\t%s\n' "$here/$i.safetensors" "${all[(i + 1) % 5]}" >>"$here/wrong"
  done
  judge --list "$here/right" --share 0.8
  [ "$status" = 0 ]
  judge --list "$here/wrong" --share 0.01
  [ "$status" = 1 ]
}

@test "make run: a video and its contact sheet" {
  trained
  make --no-print-directory run BUILD="$(dirname "$MOONKILN")" PROMPT="a blue ball rises" SEED=2 OUT="$out/x.mp4"
  [ "$(ffprobe -v error -count_frames -show_entries stream=width,height,r_frame_rate,nb_read_frames -of csv=p=0 "$out/x.mp4")" = "128,128,8/1,17" ]
  [ "$(ffprobe -v error -show_entries stream=width,height -of csv=p=0 "$out/x.png")" = "392,392" ]
}

@test "Diffusers' pipeline makes the same clip" {
  trained
  clip "$here/a.safetensors" "a red ball rolls to the right"
  judge "$here/a.safetensors" --reference tests/vectors/pocket.png --psnr 50
  [ "$status" = 0 ]
}

# ball FILE R,G,B STEP: a ball of that colour on grey that moves STEP pixels to the right each frame, in 17 frames of 128x128.
ball() {
  "$PYTHON" - "$@" <<'PY'
import json, struct, sys
import numpy as np
path, colour, step = sys.argv[1], [int(c) for c in sys.argv[2].split(",")], float(sys.argv[3])
y, x = np.mgrid[:128, :128]
clip = np.full((17, 128, 128, 3), 122, np.float32)
for t in range(17):
    clip[t][(x - 64 - step * (t - 8)) ** 2 + (y - 64) ** 2 < 18 ** 2] = colour
clip = clip / 127.5 - 1
head = json.dumps({"frames": {"dtype": "F32", "shape": list(clip.shape), "data_offsets": [0, clip.nbytes]}}).encode()
open(path, "wb").write(struct.pack("<Q", len(head)) + head + clip.tobytes())
PY
}

judge() { run "$PYTHON" scripts/pocket/judge "$@"; echo "$output"; }

@test "a clip is right by its own prompt and wrong by another's" {
  ball "$here/a.safetensors" 220,35,35 4
  judge "$here/a.safetensors" --prompt "a red ball moves to the right on a grey background"
  [ "$status" = 0 ]
  judge "$here/a.safetensors" --prompt "a red ball moves to the left on a grey background"
  [ "$status" = 1 ]
  judge "$here/a.safetensors" --prompt "a blue ball moves to the right on a grey background"
  [ "$status" = 1 ]
}

@test "two clips are compared" {
  ball "$here/a.safetensors" 220,35,35 4
  ball "$here/b.safetensors" 45,85,230 4
  judge "$here/a.safetensors" --reference "$here/a.safetensors"
  [ "$status" = 0 ]
  judge "$here/a.safetensors" --reference "$here/b.safetensors"
  [ "$status" = 1 ]
}

@test "a picture of the frames can be compared with" {
  ball "$here/a.safetensors" 220,35,35 4
  "$PYTHON" - "$here/a.safetensors" "$here/a.png" <<'PY'
import sys
sys.path.insert(0, "scripts/pocket")
import frames
clip = frames.to_bytes(frames.read(sys.argv[1]))
frames.write_png(sys.argv[2], clip.reshape(-1, *clip.shape[2:]))
frames.write_png(sys.argv[2] + ".wide.png", clip[0][:100])
PY
  judge "$here/a.safetensors" --reference "$here/a.png" --psnr 50
  [ "$status" = 0 ]
  ball "$here/b.safetensors" 220,35,35 3
  judge "$here/b.safetensors" --reference "$here/a.png"
  [ "$status" = 1 ]
  judge "$here/a.safetensors" --reference "$here/a.png.wide.png"
  [ "$status" = 2 ]
  [[ $output == *wide.png*"128x100"* ]]
  head -c 300 "$here/a.png" >"$here/short.png"
  judge "$here/a.safetensors" --reference "$here/short.png"
  [ "$status" = 2 ]
  [[ $output == *short.png* ]]
}

# A random model of the pocket's size of clips: noise.
noise() {
  model diffusers
  echo '{"width": 128, "height": 64, "frames": 5}' >"$here/model/moonkiln.json"
}

@test "noise fails the exam" {
  noise
  run "$PYTHON" scripts/pocket/exam.py --program "$MOONKILN" --model "$here/model" --count 2 --swapped 1 --list -- --steps 2 --backend cpu
  echo "$output"
  [ "$status" = 1 ]
  [[ $output == *"unseen prompts, 2 clips: right 0 %"*"other prompts, 2 clips: right 0 %"*"experts swapped, 1 clips: right 0 %"* ]]
  [ "$(grep -c '^wrong, seed' <<<"$output")" = 2 ]
  run "$PYTHON" scripts/pocket/exam.py --program "$MOONKILN" --model "$here/none"
  [ "$status" = 2 ]
}

@test "a strip has a row for each prompt" {
  noise
  "$PYTHON" scripts/pocket/strip.py "$out/strip.png" "a red ball rises" "a blue star spins" --program "$MOONKILN" --model "$here/model" --columns 3
  [ "$(ffprobe -v error -show_entries stream=width,height -of csv=p=0 "$out/strip.png")" = "390,131" ]
  run "$PYTHON" scripts/pocket/strip.py "$here/none/strip.png" "a red ball rises" --program "$MOONKILN" --model "$here/model"
  [ "$status" = 1 ]
  [[ $output == *none/strip.png* ]]
}

@test "wrong input is named" {
  judge "$here/none.safetensors" --prompt "a red ball moves up"
  [ "$status" = 2 ]
  [[ $output == *none.safetensors* ]]
  printf 'not a clip' >"$here/c.y4m"
  judge "$here/c.y4m" --prompt "a red ball moves up"
  [ "$status" = 2 ]
  [[ $output == *c.y4m* ]]
  ball "$here/a.safetensors" 220,35,35 4
  judge "$here/a.safetensors" --prompt "a walrus sings"
  [ "$status" = 2 ]
}
