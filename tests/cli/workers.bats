#!/usr/bin/env bats
# Compile workers as processes of their own program; the unit tests fork instead.

setup() {
  cd "$BATS_TEST_DIRNAME/../.." || exit 1
  MOONKILN=${MOONKILN:-$PWD/build/moonkiln}
  tests=$(dirname "$MOONKILN")/unit/test_compiler
  if "$MOONKILN" info | grep -qE '^NVRTC +not found'; then skip "no NVRTC"; fi
}

@test "crashes, hangs and errors, with the program as the worker" {
  MOONKILN_WORKER=$MOONKILN run "$tests"
  echo "$output"
  [ "$status" -eq 0 ]
}

@test "one worker, and no standard input" {
  MOONKILN_WORKERS=1 MOONKILN_WORKER=$MOONKILN run "$tests" <&-
  echo "$output"
  [ "$status" -eq 0 ]
}

@test "a worker that cannot be started, or ends at once, is named" {
  MOONKILN_WORKER=/nowhere/moonkiln run "$tests"
  [ "$status" -ne 0 ]
  [[ $output == *"cannot start the compile worker /nowhere/moonkiln: No such file"* ]]
  MOONKILN_WORKER=/bin/false run "$tests"
  [ "$status" -ne 0 ]
  [[ $output == *"ended before it was ready (signal 0, exit code 1)"* ]]
}
