#!/usr/bin/env bats
# moonkiln info: what is found and what is said about what is not. Needs no GPU; a made-up driver stands in for good and bad ones.

setup() {
  cd "$BATS_TEST_DIRNAME/../.." || exit 1
  MOONKILN=${MOONKILN:-$PWD/build/moonkiln}
  export MOONKILN_CACHE=$BATS_TEST_TMPDIR/cache
}

fake_driver() {
  cc -shared -fPIC -I. -o "$BATS_TEST_TMPDIR/libcuda.so.1" tests/cli/fake_driver.c tests/cli/fake_driver_rest.c
  export LD_LIBRARY_PATH=$BATS_TEST_TMPDIR
}

@test "shows libraries and folders, and makes no folder" {
  run "$MOONKILN" info
  [ "$status" -eq 0 ]
  [[ $output == *NVRTC* && $output == *cuBLASLt* && $output == *"$MOONKILN_CACHE"* && $output == *cores* ]]
  [ ! -e "$MOONKILN_CACHE" ]
}

@test "no NVRTC: says where it looked and what to install" {
  MOONKILN_CUDA=/nowhere run "$MOONKILN" info
  [ "$status" -eq 0 ]
  [[ $output == *"NVRTC        not found"* && $output == *"MOONKILN_CUDA, /nowhere"* ]]
}

@test "a driver that is too old is named with both versions" {
  fake_driver
  FAKE_VERSION=11040 run "$MOONKILN" info
  [ "$status" -eq 0 ]
  [[ $output == *"supports CUDA 11.4, but 12.0 or newer is needed"* ]]
}

@test "a driver with no GPU" {
  fake_driver
  FAKE_INIT=100 run "$MOONKILN" info
  [[ $output == *"sees no GPU"* ]]
  FAKE_INIT=100 CUDA_VISIBLE_DEVICES=7 run "$MOONKILN" info
  [[ $output == *"CUDA_VISIBLE_DEVICES is 7"* ]]
  FAKE_INIT=803 run "$MOONKILN" info
  [[ $output == *"restart the machine"* ]]
  FAKE_INIT=999 run "$MOONKILN" info
  [[ $output == *"cuInit(0) failed: made up (CUDA_ERROR_MADE_UP)"* ]]
}

@test "a driver that lacks a function" {
  cc -shared -fPIC -I. -o "$BATS_TEST_TMPDIR/libcuda.so.1" tests/cli/fake_driver.c
  LD_LIBRARY_PATH=$BATS_TEST_TMPDIR run "$MOONKILN" info
  [[ $output == *"libcuda.so.1 has no function cuDeviceGet; update the NVIDIA driver"* ]]
}

@test "a GPU is listed, and one that is too old is said to be" {
  fake_driver
  run "$MOONKILN" info
  [[ $output == *"Made-up GPU, sm_90, 100 multiprocessors, 48.0 GiB"* ]]
  FAKE_ARCH=75 run "$MOONKILN" info
  [[ $output == *"no kernels for the GPU architecture 75"* ]]
}

@test "libraries newer than the driver are not taken" {
  fake_driver
  mkdir "$BATS_TEST_TMPDIR/toolkit"
  touch "$BATS_TEST_TMPDIR/toolkit/libnvrtc.so.13"
  MOONKILN_CUDA=$BATS_TEST_TMPDIR/toolkit FAKE_VERSION=12080 run "$MOONKILN" info
  [[ $output == *"of CUDA 12 or older (the newest that the driver accepts)"* ]]
}

@test "a library that is no library is a warning with its name" {
  mkdir "$BATS_TEST_TMPDIR/toolkit"
  echo text >"$BATS_TEST_TMPDIR/toolkit/libnvrtc.so.13"
  MOONKILN_CUDA=$BATS_TEST_TMPDIR/toolkit run "$MOONKILN" info
  [[ $output == *"libnvrtc.so.13 does not load"* ]]
}

@test "the environment table has every switch" {
  run "$MOONKILN" info --env
  [ "$status" -eq 0 ]
  while read -r name; do [[ $output == *"$name"* ]]; done < <(grep -oE 'MOONKILN_[A-Z_]+' runtime/base/env.def)
}

@test "bad and unknown switches" {
  MOONKILN_WORKERS=none run "$MOONKILN" info
  [ "$status" -eq 2 ]
  [[ $output == *'MOONKILN_WORKERS is "none"'* ]]
  MOONKILN_CASHE=/tmp run "$MOONKILN" info
  [ "$status" -eq 0 ]
  [[ $output == *"MOONKILN_CASHE is not known"* ]]
}

@test "usage" {
  run "$MOONKILN" info --help
  [ "$status" -eq 0 ]
  run "$MOONKILN" info --nonsense
  [ "$status" -eq 2 ]
  run "$MOONKILN" info extra
  [ "$status" -eq 2 ]
}
