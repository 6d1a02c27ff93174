#!/usr/bin/env bats
# The judge of the pocket model's clips, on clips drawn here: NumPy is all that it needs.
# shellcheck disable=SC2154 # here, status, output: helper.bash and bats

setup() {
  load helper
  common
  PYTHON=${PYTHON:-python3}
  "$PYTHON" -c 'import numpy' || skip "no NumPy"
  export PYTHONDONTWRITEBYTECODE=1
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
