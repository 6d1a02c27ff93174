/* wgmma on descriptors known to the compiler: NVRTC 13.0 ends with a segmentation fault. */
extern "C" __global__ void __launch_bounds__(128) KERNEL(const __grid_constant__ Params p) {
  float d[4] = {0, 0, 0, 0};
  asm volatile("wgmma.fence.sync.aligned;");
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "l"(0ull), "l"(0ull));
  asm volatile("wgmma.commit_group.sync.aligned;");
  asm volatile("wgmma.wait_group.sync.aligned 0;");
  epilogue<1>(p, threadIdx.x % p.m, 0, reinterpret_cast<const float(&)[1]>(d[0]));
}
