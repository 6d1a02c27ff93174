#!/usr/bin/env bats
# A template that is wrong, crashes the compiler, hangs it, spills, or asks for too much costs its kernels and not the run. The GPU
# is made up; the compiler is real.
# shellcheck disable=SC2154 # here, out: helper.bash

setup() {
  load helper
  common
  need_nvrtc
  fake_driver
  mkdir "$here/data"
  cp -r templates scripts "$here/data"
  export MOONKILN_DATA=$here/data
  cat >"$here/graph.lua" <<'END'
local x = input { name = "x", shape = { 64, 128 } }
output("y", matmul(x:cast "bf16", weight("w", { 256, 128 }):cast "bf16"):gelu())
END
  tensors write "$here/w.safetensors" 1 w=256x128
  tensors write "$here/x.safetensors" 2 x=64x128
}

# spoil TEMPLATE: the text of the standard input is added to it.
spoil() { cat >>"$here/data/templates/$1.cu"; }

run_graph() {
  "$MOONKILN" run "$here/graph.lua" --backend cuda --weights "$here/w.safetensors" --inputs "$here/x.safetensors" \
    --outputs "$out/y.safetensors"
}

# goes_on WORD...: the run succeeds, names the kernel and the file that keeps its source, and says every WORD.
goes_on() {
  run run_graph
  echo "exit $status: $output"
  [ "$status" -eq 0 ]
  [ -e "$out/y.safetensors" ]
  [[ $output == *"kernel matmul_mma_"* ]]
  local word kept
  for word; do [[ $output == *"$word"* ]] || { echo "it does not say: $word"; return 1; }; done
  kept=$(grep -oE "its source is in .*" <<<"$output" | head -n 1 | cut -d ' ' -f 5)
  grep -q KERNEL "$kept"
  [ -e "${kept%.cu}.log" ]
}

@test "all is well" {
  run run_graph
  [ "$status" -eq 0 ]
  [ -z "$output" ]
  "$MOONKILN" cache list --kernel matmul_mma | grep -q registers=
}

@test "a template that does not compile" {
  spoil matmul_mma <<'END'
__device__ int first_line = 1;
__device__ int broken = first + 2;
__device__ int last_line = 3;
END
  goes_on "does not compile" 'identifier "first" is undefined' "| __device__ int first_line = 1;" "| __device__ int broken = first + 2;"
  grep -qE '^  > +[0-9]+ \| __device__ int broken' <<<"$output"
  # Known the second time, and said again; forgotten when the source is another one.
  goes_on "was not tried again"
  [ "$("$MOONKILN" cache list --kernel matmul_mma | grep -c 'failed: does not compile')" -ge 1 ]
  cp templates/matmul_mma.cu "$here/data/templates"
  run run_graph
  [ -z "$output" ]
}

@test "a template that crashes the compiler: wgmma on constant descriptors" {
  spoil matmul_mma <<'END'
extern "C" __global__ void __launch_bounds__(128) crashing(float *x) {
  float d[4] = {0, 0, 0, 0};
  asm volatile("wgmma.fence.sync.aligned;");
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(0ull), "l"(0ull));
  asm volatile("wgmma.commit_group.sync.aligned;");
  asm volatile("wgmma.wait_group.sync.aligned 0;");
  for (int i = 0; i < 4; i++) x[threadIdx.x * 4 + i] = d[i];
}
END
  goes_on "compiler"
  [[ $output == *"crashed (signal"* || $output == *"ended without a result"* || $output == *"does not compile"* ]]
}

@test "a template that hangs the compiler: an endless constexpr loop" {
  export MOONKILN_COMPILE_TIMEOUT=3
  spoil matmul_mma <<'END'
constexpr long endless(long n) {
  long sum = 0;
  for (long i = 0;; i++) sum ^= i * n;
  return sum;
}
template <int A, long B> struct Deep { static constexpr int v = Deep<A - 1, B * 2>::v + Deep<A - 1, B * 2 + 1>::v; };
template <long B> struct Deep<0, B> { static constexpr int v = endless(B) != 1; };
__device__ int never = Deep<40, 1>::v;
END
  goes_on "compiling took longer than 3 seconds" MOONKILN_COMPILE_TIMEOUT
  SECONDS=0
  goes_on "was not tried again"
  ((SECONDS < 3))
}

@test "a template that wants more shared memory than there is" {
  spoil matmul_mma <<'END'
extern "C" __global__ void greedy(float *x) {
  __shared__ float all_of_it[1 << 16];
  all_of_it[threadIdx.x * 64] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = all_of_it[threadIdx.x * 32];
}
END
  goes_on "declares 262144 bytes of static shared memory" "49152 are the most" "|   __shared__ float all_of_it[1 << 16];"
}

@test "a template whose registers spill" {
  spoil matmul_mma <<'END'
extern "C" __global__ void __launch_bounds__(1024) spilling(float *x) {
  float a[120];
#pragma unroll
  for (int i = 0; i < 120; i++) a[i] = x[i * 1024 + threadIdx.x];
  for (int j = 0; j < 100; j++) {
#pragma unroll
    for (int i = 0; i < 120; i++) a[i] = a[i] * a[(i * 7 + 1) % 120] + x[j];
  }
#pragma unroll
  for (int i = 0; i < 120; i++) x[i * 1024 + threadIdx.x] = a[i];
}
END
  goes_on "spills" "of its registers" "__global__ void __launch_bounds__(1024) spilling"
  # Later starts know it and keep still about it.
  run run_graph
  [ "$status" -eq 0 ]
  [ -z "$output" ]
}

@test "a kernel that the GPU refuses" {
  FAKE_THREADS=128 run run_graph
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"kernel row_copy_"*"cannot be used: a block of 256 threads does not fit"*"launch_bounds__(256"*"its source is in "* ]]
}

@test "when nothing of a group works, the run ends and says so" {
  for template in "$here"/data/templates/matmul_*.cu; do echo '#error spoiled' >>"$template"; done
  refused run_graph -- "no realisation of a group works" "matmul" "does not compile"
  [ "$status" -eq 1 ]
}
