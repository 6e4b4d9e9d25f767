"""Names of the kernels of a dense model's decode in vLLM on H100, as its traces spell them."""

from __future__ import annotations

GATHER = (
    "void at::native::vectorized_gather_kernel<16, long>(char*, char*, long*, int, long, "
    "long, long, long, bool)"
)
RMS_NORM = (
    "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>(c10::BFloat16*, long, "
    "c10::BFloat16*, c10::BFloat16 const*, float, int, int)"
)
ROTARY = (
    "void vllm::rotary_embedding_kernel<c10::BFloat16, true>(long const*, c10::BFloat16*, "
    "c10::BFloat16*, c10::BFloat16 const*, int, long, long, long, int, int, int)"
)
CACHE_WRITE = (
    "void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, "
    "(vllm::Fp8KVCacheDataType)0>(__nv_bfloat16 const*, __nv_bfloat16 const*, __nv_bfloat16*,"
    " __nv_bfloat16*, long const*, long, long, long, long, long, int, int, int)"
)
ATTENTION = (
    "void "
    "cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::Collec"
    "tiveMainloopFwdSm90<2, (cute::tuple)0, 128, cutlass::bfloat16_t, float, "
    "cutlass::arch::Sm90> > > >(flash::Params)"
)
ACTIVATION = (
    "void vllm::act_and_mul_kernel<c10::BFloat16, &(c10::BFloat16 "
    "vllm::silu_kernel<c10::BFloat16>(c10::BFloat16 const&)), true>(c10::BFloat16*, "
    "c10::BFloat16 const*, int)"
)
ARG_MAX = (
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, "
    "at::native::ArgMaxOps<float>, unsigned int, long, 4, 4> >(at::native::ReduceOp<float, "
    "at::native::ArgMaxOps<float>, unsigned int, long, 4, 4>)"
)
ALL_REDUCE = (
    "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(vllm::RankData*, "
    "vllm::RankSignals, vllm::Signal*, __nv_bfloat16*, int, int)"
)
ALL_GATHER = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
QKV_GEMM = "nvjet_hsh_64x64_64x13_4x1_v_bz_splitK_TNT"
OUTPUT_GEMM = "nvjet_hsh_64x8_64x16_4x1_v_bz_TNT"
GATE_UP_GEMM = "nvjet_hsh_128x64_64x9_2x1_v_bz_TNT"
DOWN_GEMM = "nvjet_hsh_64x64_64x13_4x1_v_bz_TNT"
LOGITS_GEMM = "nvjet_hsh_128x64_64x9_1x2_h_bz_TNT"
