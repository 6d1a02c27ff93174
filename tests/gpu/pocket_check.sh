#!/usr/bin/env bash
# Holds the GPU's clip of a prompt and seed together with the CPU backend's, by the pocket model: PSNR of the worst frame.
# usage: tests/gpu/pocket_check.sh MOONKILN [MODEL]
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$1 model=${2:-scripts/pocket/model} least=35
[[ -e $model/model_index.json ]] || { echo "pocket model: skipped, there is none in $model"; exit 0; }
python3 -c 'import numpy' 2>/dev/null || { echo "pocket model: skipped, python3 has no NumPy"; exit 0; }
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

# clip NAME BACKEND POLICY
clip() {
  "$program" generate "$model" --prompt "a red ball rolls to the right" --seed 1 --backend "$2" --policy "$3" --tune-budget 0 \
    --out "$here/$1.safetensors" 2>"$here/log" || { cat "$here/log"; return 1; }
  tail -n 1 "$here/log" | sed "s|.*: 17|$2, $3: 17|"
}

# hold A B: how alike two clips are.
hold() {
  local line
  if line=$(python3 scripts/pocket/judge "$here/$1.safetensors" --reference "$here/$2.safetensors" --psnr $least | tail -n 1); then
    echo "pocket model, $1 and $2: $line"
  else
    echo "FAILED pocket model, $1 and $2: $line; at least $least dB"
    bad=1
  fi
}

bad=0
clip cpu_exact cpu exact
clip cpu_fp32 cpu fp32
clip gpu_exact cuda exact
clip gpu_fp32 cuda fp32
hold gpu_exact cpu_exact
hold gpu_fp32 cpu_fp32
exit $bad
