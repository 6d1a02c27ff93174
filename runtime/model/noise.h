/* The initial noise, N(0, 1) in fp32, as PyTorch draws it for the same seed. */
#ifndef MK_MODEL_NOISE_H
#define MK_MODEL_NOISE_H

#include <stddef.h>
#include <stdint.h>

/* torch.manual_seed(seed); torch.randn(count) on the CPU (Mersenne Twister; the seed's low 32 bits count). Within 1e-6 of
 * PyTorch, whose last bits depend on its vector units; here the same seed gives the same bits everywhere. */
void mk_noise_cpu(uint64_t seed, float *out, size_t count);

enum {
  MK_NOISE_GRID_H100 = 1056
}; /* blocks that mk_noise_cuda's `grid` stands for on an H100 or H200: 132 multiprocessors × 8 */

/* torch.randn(count, device="cuda") right after torch.manual_seed(seed) (Philox4x32-10). PyTorch's numbers depend on the card:
 * grid = multiprocessors × (threads per multiprocessor / 256), e.g. 1056 on H100 and H200, 864 on A100, 768 on RTX 4090.
 * Within about 1e-6: the card's sine and cosine are approximations of its own. */
void mk_noise_cuda(uint64_t seed, uint32_t grid, float *out, size_t count);

#endif
