/* What row programs use beyond row.cuh where blocks walk over rows and fetch them ahead. A thread copies to shared memory what it
 * alone will read there, so no barrier comes between. Adjacent elements lie there in pieces of 16 bytes, STEP bytes apart. */

/* N adjacent elements; not valid: nothing is read. */
template <int N, int STEP, typename T>
__device__ __forceinline__ void fetch_lanes(const T *from, u8 *to, bool valid) {
  constexpr int P = 16 / (int)sizeof(T);
#pragma unroll
  for (int i = 0; i < N; i += P) cp_async16(smem_address(to + i / P * STEP), from + i, valid);
}
template <typename T, int STEP, int V>
__device__ __forceinline__ void fetched_lanes(const u8 *at, float (&v)[V]) {
  constexpr int P = 16 / (int)sizeof(T);
#pragma unroll
  for (int i = 0; i < V; i += P) {
    float piece[P];
    load_vec<P>(reinterpret_cast<const T *>(at + i / P * STEP), piece);
#pragma unroll
    for (int j = 0; j < P; j++) v[i + j] = piece[j];
  }
}
template <typename T, int STEP, int V>
__device__ __forceinline__ void fetched_pairs(const u8 *at, float (&v)[V]) {
  float half[V / 2];
  fetched_lanes<T, STEP>(at, half);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = half[i / 2];
}
