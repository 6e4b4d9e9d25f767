"""Names of kernels as real traces of the engines spell them, by maker and engine.

NVIDIA names are those of vLLM's and SGLang's own kernels, cuBLAS, FlashAttention, FlashInfer,
DeepGEMM, DeepEP, Triton and NCCL; AMD names those of their ROCm builds (aiter, composable kernels,
hipBLASLt, RCCL), most of them as the traces behind :mod:`kat_otel.lmdia.fit_noise` have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kat_otel.lmdia import kernel_names as vllm_h100
from kat_otel.lmdia.tasks.task import Engine

__all__ = ["Part", "names_of"]

Part = Literal[
    "gather", "norm", "qkv", "rope", "cache", "attention", "prefill_attention", "out", "gate_up",
    "act", "down", "router", "experts_up", "experts_act", "experts_down", "scatter", "logits",
    "argmax", "all_reduce", "ring_all_reduce", "all_gather", "dispatch", "combine", "send_recv",
    "all_to_all", "latent", "quantise", "modulate", "add",
]  # fmt: skip
"""What a kernel does in a step."""

_ELEMENTWISE = (
    "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::BFloat16>, "
    "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<c10::BFloat16>, "
    "std::array<char*, 3ul>)"
)
_NCCL = "ncclDevKernel_{}(ncclDevKernelArgsStorage<4096ul>)"
_RCCL = "ncclDevKernel_Generic_4(ncclDevKernelArgsStorage<4096ul>)"
_TENSILE = (
    "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT{}_MI16x16x1_SN_LDSB1_AFC1_AFEM1_AFEM1_ASEM1_"
    "CLR1_CADS0_EPS0_FDSI0_GRPM1_GRVWA8_GRVWB8_ISA942_IU1_K1"
)

_VLLM: Mapping[Part, str] = {
    "gather": vllm_h100.GATHER,
    "norm": vllm_h100.RMS_NORM,
    "qkv": vllm_h100.QKV_GEMM,
    "rope": vllm_h100.ROTARY,
    "cache": vllm_h100.CACHE_WRITE,
    "attention": vllm_h100.ATTENTION,
    "prefill_attention": vllm_h100.ATTENTION,
    "out": vllm_h100.OUTPUT_GEMM,
    "gate_up": vllm_h100.GATE_UP_GEMM,
    "act": vllm_h100.ACTIVATION,
    "down": vllm_h100.DOWN_GEMM,
    "router": (
        "void vllm::moe::topkGatingSoftmax<4, 128, 4, 16, int>(float const*, bool const*, float*, "
        "int, int*, int*, int, int, int)"
    ),
    "experts_up": "fused_moe_kernel",
    "experts_act": vllm_h100.ACTIVATION,
    "experts_down": "fused_moe_kernel",
    "scatter": (
        "void vllm::moe::moe_sum_kernel<c10::BFloat16, 8>(c10::BFloat16*, "
        "c10::BFloat16 const*, int)"
    ),
    "logits": vllm_h100.LOGITS_GEMM,
    "argmax": vllm_h100.ARG_MAX,
    "all_reduce": vllm_h100.ALL_REDUCE,
    "ring_all_reduce": _NCCL.format("AllReduce_Sum_bf16_RING_LL"),
    "all_gather": vllm_h100.ALL_GATHER,
    "dispatch": (
        "void deep_ep::internode_ll::dispatch<true, false, 7168>(void*, float*, int*, long*, int*, "
        "int*, int*, long*, void*, int*, void const*, long const*, int*, int*, int, int, int, int, "
        "int, int)"
    ),
    "combine": (
        "void deep_ep::internode_ll::combine<false, 7168, 9>(void*, void*, int*, void*, "
        "void const*, long const*, float const*, int const*, long const*, int*, int, int*, int, "
        "int, int, int)"
    ),
    "send_recv": _NCCL.format("SendRecv"),
    "all_to_all": _NCCL.format("SendRecv"),
    "latent": (
        "void flash_fwd_splitkv_mla_kernel<Flash_fwd_kernel_traits_mla<576, 64, 64, 8, "
        "cutlass::bfloat16_t, 512>, true, SharedStorageMLA>(Flash_fwd_mla_params)"
    ),
    "quantise": (
        "void vllm::per_token_group_quant_8bit_kernel<c10::BFloat16, c10::Float8_e4m3fn, false, "
        "float>(c10::BFloat16 const*, void*, float*, int, int, int, float, float, float, int, int)"
    ),
    "modulate": "triton_poi_fused_add_mul_native_layer_norm_1",
    "add": _ELEMENTWISE,
}

_SGLANG: Mapping[Part, str] = {
    **_VLLM,
    "norm": (
        "void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>(__nv_bfloat16*, "
        "__nv_bfloat16*, __nv_bfloat16*, unsigned int, unsigned int, unsigned int, float, float)"
    ),
    "rope": (
        "void flashinfer::BatchQKApplyRotaryPosIdsCosSinCacheEnhancedKernel<true, true, 128u, 8u, "
        "16u, __nv_bfloat16, long>(flashinfer::RopeParams)"
    ),
    "cache": "void (anonymous namespace)::store_kvcache<256ul>(StoreKVCacheParams)",
    "attention": (
        "void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0, 2u, "
        "1u, 8u, 16u, 4u, flashinfer::DefaultAttention<false, false, false, false>, "
        "flashinfer::BatchDecodeParams<__nv_bfloat16, __nv_bfloat16, __nv_bfloat16, int> >"
    ),
    "prefill_attention": (
        "void flashinfer::BatchPrefillWithPagedKVCacheKernel<flashinfer::KernelTraits<"
        "(flashinfer::MaskMode)1, 128u, 2u, 8u, 4u>, flashinfer::BatchPrefillPagedParams>"
    ),
    "act": (
        "void flashinfer::activation::act_and_mul_kernel<__nv_bfloat16, &(silu(float const&))>("
        "__nv_bfloat16*, __nv_bfloat16 const*, int)"
    ),
    "router": (
        "void topkGatingSoftmax<4, 128, 4, 16>(float const*, bool const*, float*, int, int*, int*, "
        "int, int, int)"
    ),
    "experts_act": (
        "void flashinfer::activation::act_and_mul_kernel<__nv_bfloat16, &(silu(float const&))>("
        "__nv_bfloat16*, __nv_bfloat16 const*, int)"
    ),
    "scatter": "void moe_sum_reduce_warp_per_token_vec_kernel<8>(c10::BFloat16 const*, float)",
    "all_reduce": (
        "void sglang::cross_device_reduce_1stage<__nv_bfloat16, 8>(sglang::RankData*, "
        "sglang::RankSignals, sglang::Signal*, __nv_bfloat16*, int, int)"
    ),
    "quantise": (
        "void per_token_group_quant_8bit_kernel<c10::BFloat16, __nv_fp8_e4m3>(c10::BFloat16 "
        "const*, void*, float*, int, int, int, float, float, float)"
    ),
}

_DEEP_GEMM = (
    "void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, {}u, {}u, {}u, {}u, 128u, 128u, 128u, 5u, 128u, "
    "128u, 1u, true, 132u, (deep_gemm::GemmType){}>"
)
_FP8: Mapping[Part, str] = {
    "qkv": _DEEP_GEMM.format(2112, 7168, 1, 128, 0),
    "out": _DEEP_GEMM.format(7168, 16384, 1, 128, 0),
    "gate_up": _DEEP_GEMM.format(4096, 7168, 1, 128, 0),
    "down": _DEEP_GEMM.format(7168, 2048, 1, 128, 0),
    "experts_up": _DEEP_GEMM.format(4096, 7168, 32, 64, 2),
    "experts_down": _DEEP_GEMM.format(7168, 2048, 32, 64, 2),
}
"""What replaces the matrix products where weights have 8 bits."""

_B200: Mapping[Part, str] = {
    "qkv": "nvjet_tst_64x64_64x16_2x1_2cta_v_bz_bias_TNT",
    "out": "nvjet_tst_64x16_64x16_2x4_2cta_h_bz_bias_TNT",
    "attention": (
        "fmhaSm100aKernel_QkvE4m3OBfloat16H64PagedKvCausalP16VarSeqQ128Kv128PersistentContext"
    ),
    "router": (
        "void moe::dev::routing::routingRenormalize::routingIndicesHistogramScoresKernel<"
        "moe::dev::routing::routingRenormalize::KernelParams<__nv_bfloat16, __nv_bfloat16, 128> >"
    ),
    "experts_up": (
        "bmm_MxE4m3_MxE2m1MxE4m3_Fp32_t128x16x256u2_s3_et128x16_m128x16x32_cga1x1x1_16dp256b_rM_TN_"
        "transOut_schedP2x1x2x3_biasM_bN_tma_tmaOpt_clmp_swiGlu_dynBatch_sm100f"
    ),
    "experts_down": (
        "bmm_Bfloat16_MxE2m1MxE4m3_Fp32_t128x16x256u2_s3_et128x16_m128x16x32_cga1x1x1_16dp256b_rM_"
        "TN_transOut_schedP2x1x2x3_biasM_bN_tmaOpt_clmp_dynBatch_sm100f"
    ),
    "scatter": (
        "void moe::dev::finalize::finalizeKernelVecLoad<moe::dev::finalize::KernelParams<"
        "cutlass::bfloat16_t, cutlass::bfloat16_t, 4, true> >"
    ),
    "all_reduce": (
        "void (anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(c10::BFloat16*, "
        "unsigned long, unsigned int**, unsigned long, unsigned long)"
    ),
    "logits": "nvjet_tst_192x8_64x8_4x1_v_bz_TNT",
}

_AMD: Mapping[Part, str] = {
    "norm": "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi256ELi16ELb1ELb0ELb1ELi1EEEvPT0_PT_",
    "qkv": _TENSILE.format("64x32x256"),
    "rope": "void rotary_embedding_kernel<c10::BFloat16, true>(long const*, c10::BFloat16*)",
    "cache": "void vllm::reshape_and_cache_flash_kernel<__hip_bfloat16, __hip_bfloat16>",
    "attention": (
        "void paged_attention_ll4mi_QKV_mfma16_kernel<0, __hip_bfloat16, __hip_bfloat16, "
        "(vllm::Fp8KVCacheDataType)0, 1, 128, 256, false, 4, 1>"
    ),
    "prefill_attention": (
        "void ck_tile::kentry<2, ck_tile::FmhaFwdKernel<ck_tile::BlockFmhaPipelineQRKSVSAsync> >"
    ),
    "out": _TENSILE.format("16x32x512"),
    "gate_up": _TENSILE.format("256x32x64"),
    "act": "_ZN7sgl_hip10activation18act_and_mul_kernelI14__hip_bfloat16EEvPS3_PS4_i",
    "down": _TENSILE.format("32x32x256"),
    "logits": _TENSILE.format("256x48x64"),
    "all_reduce": (
        "void aiter::cross_device_reduce_2stage<__hip_bfloat16, 8, true>(aiter::RankData*, "
        "aiter::RankSignals, aiter::Signal*, __hip_bfloat16*, int, int)"
    ),
    "ring_all_reduce": _RCCL,
    "all_gather": _RCCL,
}


def names_of(engine: Engine, gpu: str, *, eight_bits: bool) -> Mapping[Part, str]:
    """Returns the name of every part's kernel.

    Args:
        engine: whose own kernels.
        gpu: name of the GPU.
        eight_bits: whether linear layers have weights of 8 bits.
    """
    names = dict(_VLLM if engine == "vllm" else _SGLANG)
    if eight_bits:
        names |= _FP8
    if gpu == "B200":
        names |= _B200
    if gpu == "MI300X":
        names |= _AMD
    return names
