#!/usr/bin/env bats
# The comparison with PyTorch: its own arithmetic, and all of it at toy sizes where PyTorch is.
# shellcheck disable=SC2154 # here, status, output: helper.bash and bats

setup() {
  load helper
  common
  PYTHON=${PYTHON:-python3}
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || skip "no Python 3.9"
  export PYTHONDONTWRITEBYTECODE=1
}

@test "results, tables and moonkiln's answers" { "$PYTHON" tests/cli/compare_test.py; }

@test "wrong rows and token counts" {
  run "$PYTHON" scripts/compare_torch.py --rows attention,speed
  ((status == 2))
  [[ $output == *"unknown rows ['speed']"* ]]
}

@test "no PyTorch" {
  if "$PYTHON" -c 'import torch' 2>/dev/null; then skip "it is there"; fi
  run "$PYTHON" scripts/compare_torch.py --list
  ((status == 2))
  [[ $output == *"package torch is not installed"* && $output != *Traceback* ]]
}

@test "every row at toy sizes, both sides computing the same" {
  "$PYTHON" -c 'import torch, diffusers, transformers' || skip "no PyTorch, diffusers, transformers"
  "$PYTHON" scripts/compare_torch.py --smoke --moonkiln "$MOONKILN" --json "$here/x.json" --markdown "$here/x.md"
  run grep -E 'failed|missed|Not measured' "$here/x.md"
  ((status == 1))
  [ "$(grep -c 'bench needs a GPU' "$here/x.md")" = 13 ]
  [ "$(grep -c '| bar |$' "$here/x.md")" = 13 ]
  "$PYTHON" scripts/compare_torch.py --tables "$here/x.json" | diff - "$here/x.md"
}

@test "one layer in a folder that stays" {
  "$PYTHON" -c 'import torch, diffusers, transformers' || skip "no PyTorch, diffusers, transformers"
  "$PYTHON" scripts/compare_torch.py --smoke --layer-error "$here/layer" --moonkiln "$MOONKILN"
  [ -s "$here/layer/output.safetensors" ]
  [ -s "$here/layer/transformer/config.json" ]
}
