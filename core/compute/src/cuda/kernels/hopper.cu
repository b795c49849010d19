// Products for many rows on Hopper, of the formats that matter most: F16 (and BF16), Q4_K, Q6_K, Q8_0 and MXFP4.

#include "hopper_gemm.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BODY(...) group_gemm<__VA_ARGS__, false>(p, Groups(), row_blocks, blocks);
#define CLUSTER_1
#define CLUSTER_2 __cluster_dims__(2, 1, 1)
#else
#define BODY(...)
#define CLUSTER_1
#define CLUSTER_2
#endif

// One kernel for a format, groups of 64 outputs, rows, and blocks that have the same rows. The host has the same list.
#define HOPPER(NAME, F, WGS, ROWS, SHARE, STAGES, ROW_STAGES)                                                          \
    extern "C" __global__ void CLUSTER_##SHARE __launch_bounds__(WGS > 1 ? 128 * WGS + 128 : 160, 1)                   \
        NAME##_##WGS##_##ROWS##_##SHARE(const __grid_constant__ Products p, int row_blocks, int blocks) {              \
        BODY(F, WGS, ROWS, SHARE, STAGES, ROW_STAGES)                                                                  \
    }
HOPPER(hopper_f16, F16, 1, 16, 1, 16, 0)
HOPPER(hopper_f16, F16, 1, 32, 1, 14, 0)
HOPPER(hopper_f16, F16, 1, 64, 1, 12, 0)
HOPPER(hopper_f16, F16, 2, 64, 1, 8, 0)
HOPPER(hopper_f16, F16, 2, 64, 2, 8, 0)
HOPPER(hopper_f16, F16, 2, 128, 1, 6, 0)
HOPPER(hopper_f16, F16, 2, 128, 2, 6, 0)
HOPPER(hopper_q4k, Q4_K, 1, 32, 1, 8, 24)
HOPPER(hopper_q4k, Q4_K, 1, 64, 1, 5, 16)
HOPPER(hopper_q4k, Q4_K, 2, 64, 1, 4, 16)
HOPPER(hopper_q4k, Q4_K, 2, 128, 1, 3, 9)
HOPPER(hopper_q4k, Q4_K, 2, 128, 2, 3, 9)
HOPPER(hopper_q6k, Q6_K, 1, 32, 1, 7, 24)
HOPPER(hopper_q6k, Q6_K, 1, 64, 1, 5, 16)
HOPPER(hopper_q6k, Q6_K, 2, 64, 1, 3, 16)
HOPPER(hopper_q6k, Q6_K, 2, 64, 2, 3, 16)
HOPPER(hopper_q8, Q8_0, 1, 64, 1, 5, 12)
HOPPER(hopper_q8, Q8_0, 2, 64, 1, 3, 12)
HOPPER(hopper_q8, Q8_0, 2, 128, 1, 3, 6)
