// Products for many rows on Hopper, of the formats that matter most: F16 (and BF16), Q4_K, Q6_K and Q8_0.

#include "hopper_gemm.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BODY(...) group_gemm<__VA_ARGS__, false>(p, Groups(), row_blocks, blocks);
#else
#define BODY(...)
#endif

// One kernel for a format, groups of 64 outputs, and rows. The host has the same list.
#define HOPPER(NAME, F, WGS, ROWS, STAGES, ROW_STAGES)                                                                 \
    extern "C" __global__ void __launch_bounds__(WGS > 1 ? 128 * WGS + 128 : 160, 1)                                   \
        NAME##_##WGS##_##ROWS(const __grid_constant__ Products p, int row_blocks, int blocks) {                        \
        BODY(F, WGS, ROWS, STAGES, ROW_STAGES)                                                                         \
    }
HOPPER(hopper_f16, F16, 1, 16, 16, 0)
HOPPER(hopper_f16, F16, 1, 32, 14, 0)
HOPPER(hopper_f16, F16, 1, 64, 12, 0)
HOPPER(hopper_f16, F16, 2, 64, 8, 0)
HOPPER(hopper_f16, F16, 2, 128, 6, 0)
HOPPER(hopper_q4k, Q4_K, 1, 32, 8, 24)
HOPPER(hopper_q4k, Q4_K, 1, 64, 5, 16)
HOPPER(hopper_q4k, Q4_K, 2, 64, 4, 16)
HOPPER(hopper_q4k, Q4_K, 2, 128, 3, 9)
HOPPER(hopper_q6k, Q6_K, 1, 32, 7, 24)
HOPPER(hopper_q6k, Q6_K, 1, 64, 5, 16)
HOPPER(hopper_q6k, Q6_K, 2, 64, 3, 16)
HOPPER(hopper_q6k, Q6_K, 2, 128, 2, 9)
HOPPER(hopper_q8, Q8_0, 1, 64, 5, 12)
HOPPER(hopper_q8, Q8_0, 2, 64, 3, 12)
HOPPER(hopper_q8, Q8_0, 2, 128, 3, 6)
