#!/usr/bin/env bash
# Checks the folder rules: who may include whom. Prints each breach; exit 1 if there is any.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
bad=0

# breach FOLDER PATTERN WHY: no file of FOLDER may include a header that matches PATTERN.
breach() {
  local hits
  hits=$(grep -rnE "#include [<\"]($2)" --include='*.c' --include='*.h' --include='*.cc' "$1")
  if [[ -n $hits ]]; then
    printf '%s\n    ^ %s\n' "$hits" "$3"
    bad=1
  fi
}

breach runtime/base 'codegen/|runtime/(gpu|cpu|model|cli)/' 'runtime/base depends on libc and small libraries only'
breach codegen 'runtime/(gpu|cpu|model|cli)/|cuda|nvrtc|cublas' 'codegen knows no backend and no CUDA header'
breach runtime/gpu 'runtime/(cpu|model|cli)/|cuda\.h|nvrtc\.h|cublas' 'runtime/gpu finds CUDA at run time and knows no model'
breach runtime/cpu 'runtime/(gpu|model|cli)/' 'the CPU backend stands alone'
breach runtime/model 'runtime/cli/' 'the command line is on top'
if grep -nE '#include' templates/*.cu templates/*.cuh 2>/dev/null; then
  echo '    ^ templates include nothing: NVRTC sees one text'
  bad=1
fi
exit $bad
