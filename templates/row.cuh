/* What emitted row programs and epilogues use beyond the prelude: vectors at reduced alignment, and sums over the threads of a row. */

/* V adjacent elements, moved in pieces of at most A elements; the address suits such pieces. */
template <int A, int V, typename T>
__device__ __forceinline__ void load_lanes(const T *p, float (&v)[V]) {
  constexpr int P = A < V ? A : V;
#pragma unroll
  for (int i = 0; i < V; i += P) {
    float piece[P];
    load_vec<P>(p + i, piece);
#pragma unroll
    for (int j = 0; j < P; j++) v[i + j] = piece[j];
  }
}
template <int A, int V, typename T>
__device__ __forceinline__ void store_lanes(T *p, const float (&v)[V]) {
  constexpr int P = A < V ? A : V;
#pragma unroll
  for (int i = 0; i < V; i += P) {
    float piece[P];
#pragma unroll
    for (int j = 0; j < P; j++) piece[j] = v[i + j];
    store_vec<P>(p + i, piece);
  }
}
/* Each of V/2 adjacent elements twice: rotary tables hold one angle a pair. */
template <int A, int V, typename T>
__device__ __forceinline__ void load_pairs(const T *p, float (&v)[V]) {
  float half[V / 2];
  load_lanes<A>(p, half);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = half[i / 2];
}
template <int V>
__device__ __forceinline__ void fill_lanes(float x, float (&v)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = x;
}

struct add_values {
  __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};
struct max_values {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/* Over THREADS adjacent lanes of a warp (a power of two); every lane gets the result, in a fixed order of summation. */
template <int THREADS, typename F>
__device__ __forceinline__ float combine_lanes(float x, F f) {
#pragma unroll
  for (int d = THREADS / 2; d > 0; d /= 2) x = f(x, __shfl_xor_sync(FULL_WARP, x, d));
  return x;
}
/* Over a block of THREADS, whole warps; scratch holds one float a warp and is used once. */
template <int THREADS, typename F>
__device__ __forceinline__ float combine_block(float x, float *scratch, F f) {
  x = combine_lanes<WARP>(x, f);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  x = scratch[0];
#pragma unroll
  for (int i = 1; i < THREADS / WARP; i++) x = f(x, scratch[i]);
  return x;
}
