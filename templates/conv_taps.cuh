/* What convolutions share: where element k of the reduction meets an output pixel. k runs over (kt, kh, kw, cin), cin fastest, as
 * the weight is stored; zero padding and the nearest x2 upsampling of the input are a matter of coordinates here.
 *
 * Constants: T, K, CIN, KH, KW, PAD_T, PAD_H, PAD_W, UPSAMPLE. Params: x, m, ho, wo, ti, hi, wi. */

struct tap { /* offset from the pixel's first tap, and channel */
  i32 t, h, w, c;
  bool in_k;
  __device__ __forceinline__ explicit tap(int k)
      : t(k / (CIN * KW * KH)), h(k / (CIN * KW) % KH), w(k / CIN % KW), c(k % CIN), in_k(k < K) {}
};

/* COUNT output pixels, STRIDE apart, as one thread loads them. Two registers each: h and w share one, so both are below 32768. */
template <int COUNT, int STRIDE>
struct window {
  static constexpr i32 OUTSIDE = -(1 << 24); /* as t of pixels past the last: no tap brings them back inside */
  const T *x;
  i32 ti, hi, wi;
  i32 t[COUNT], hw[COUNT]; /* coordinates of the first tap, which padding puts below zero at the border */

  __device__ __forceinline__ window(const Params &p, i32 first) : x(p.x), ti(p.ti), hi(p.hi), wi(p.wi) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const i32 pixel = first + i * STRIDE;
      const i32 w = pixel % p.wo, h = pixel / p.wo % p.ho;
      t[i] = pixel < p.m ? pixel / p.wo / p.ho - PAD_T : OUTSIDE;
      hw[i] = (h - PAD_H) * 65536 + (w - PAD_W + 32768);
    }
  }

  /* The input element under a tap of pixel i, or NULL where the tap leaves the image. */
  __device__ __forceinline__ const T *at(int i, const tap &k) const {
    const i32 it = t[i] + k.t, ih = (hw[i] >> 16) + k.h, iw = (hw[i] & 65535) - 32768 + k.w;
    const bool inside = (u32)it < (u32)ti && (u32)ih < (u32)(hi * UPSAMPLE) && (u32)iw < (u32)(wi * UPSAMPLE);
    if (!inside || !k.in_k) return nullptr;
    return x + ((i64)((it * hi + ih / UPSAMPLE) * wi + iw / UPSAMPLE) * CIN + k.c);
  }

  __device__ __forceinline__ T value(int i, const tap &k) const {
    const T *src = at(i, k);
    return src != nullptr ? *src : from_f32<T>(0.f);
  }
};
