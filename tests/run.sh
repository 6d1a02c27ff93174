#!/usr/bin/env bash
# Runs test programs that speak TAP and closes with the line "N passed, N failed".
# usage: tests/run.sh BUILD_DIR [NAME_PATTERN]
set -uo pipefail
build=$(realpath "$1") pattern=${2:-}
log=$build/test-log
mkdir -p "$log"
passed=0 failed=0 skipped=0
export MOONKILN_CACHE=${MOONKILN_TEST_CACHE:-$build/test-cache} MOONKILN_SYSTEM_CACHE=off CMOCKA_MESSAGE_OUTPUT=TAP
export OMP_WAIT_POLICY=passive # on a busy machine spinning threads take the cores from those that work

[[ $build == "$PWD"/* ]] || export MOONKILN_DATA=$PWD # else the program finds it beside itself

# count NAME FILE STATUS: adds a TAP file's results; a program that died or left its plan unfinished is one failure.
count() {
  local name=$1 file=$2 status=$3 ok bad skip planned
  skip=$(grep -ciE '^(not )?ok .*# skip' "$file") # cmocka writes "not ok" here
  ok=$(grep -E '^ok ' "$file" | grep -vciE '# skip')
  bad=$(grep -E '^not ok ' "$file" | grep -vciE '# skip')
  grep -qE '^1\.\.0 # SKIP' "$file" && skip=1
  planned=$(grep -oE '^1\.\.[0-9]+' "$file" | head -n 1 | cut -c4-)
  if ((status != 0 && bad == 0)) || [[ -z $planned ]] || ((ok + bad + skip < planned)); then
    bad=$((bad + 1))
    echo "not ok - $name ended early (status $status)"
  fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
  if ((bad)); then
    echo "FAILED $name"
    sed 's/^/    /' "$file" | grep -vE '^    ok ' | head -n 60
  fi
  echo "# $name: $ok passed, $bad failed, $skip skipped, $((SECONDS - start)) s"
}

for t in "$build"/unit/test_*; do
  [[ -x $t && ! -d $t && $t != *.* ]] || continue
  name=$(basename "$t")
  [[ $name == *$pattern* ]] || continue
  start=$SECONDS
  timeout 600 "$t" >"$log/$name.tap" 2>"$log/$name.err"
  status=$?
  cat "$log/$name.err" >>"$log/$name.tap"
  count "$name" "$log/$name.tap" $status
done

for t in tests/cli/*.bats; do
  [[ -e $t ]] || continue
  name=$(basename "$t" .bats)
  [[ $name == *$pattern* ]] || continue
  start=$SECONDS
  MOONKILN=$build/moonkiln timeout 900 bats -F tap "$t" >"$log/$name.tap" 2>&1
  count "$name" "$log/$name.tap" $?
done

if ((skipped)); then echo "$skipped skipped: $1/test-log says why"; fi
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
