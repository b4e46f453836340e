"""The sizes at which kernels are measured, of an H200 plan of ten minutes and of a CPU's.

An H200's grids bridge at most a factor of four: held out, linear interpolation across such a
gap erred by 1.4-3.0 % in the median on a public H200 table of decode attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_K = 1024
_THOUSANDS = (1 * _K, 2 * _K, 4 * _K, 8 * _K, 16 * _K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grids:
    """Sizes by kind of kernel; ``most_*`` leave out what no engine does, or no memory holds.

    ``mixed`` holds the new tokens and the past of chunks, the decodes and their contexts;
    ``steps`` the decodes and their contexts, the new tokens and the past of whole steps.
    """

    gemm_rows: tuple[int, ...]
    unaligned_rows: Mapping[str, tuple[int, ...]]
    head_rows: tuple[int, ...]
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    most_context_tokens: int
    chunks: tuple[int, ...]
    pasts: tuple[int, ...]
    mixed: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    uneven_batches: tuple[int, ...]
    uneven_contexts: tuple[int, ...]
    prompts: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    moe_tokens: tuple[int, ...]
    steps: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    most_step_kv_bytes: float
    sentinel_decode: tuple[int, int]


H200 = Grids(
    gemm_rows=(1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, *_THOUSANDS),
    # One more row than a tile: in a public H200 table they cost 1.3-1.8 times as much in fp8,
    # at most 1.07 times in bf16.
    unaligned_rows={"bf16": (17, 129, 513), "fp8": (17, 65, 129, 257, 513, 1025)},
    # One row per sequence.
    head_rows=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    batches=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    contexts=(128, 512, *(_K << doubling for doubling in range(8))),
    most_context_tokens=_K * _K,
    chunks=(16, 32, 64, 128, 256, 512, 1 * _K, 2 * _K, 4 * _K, 8 * _K),
    pasts=(0, 1 * _K, 4 * _K, 16 * _K, 64 * _K),
    mixed=((128, 512, 2 * _K, 8 * _K), (0, 8 * _K), (8, 64, 256), (512, 2 * _K, 8 * _K)),
    uneven_batches=(4, 16, 64, 256),
    uneven_contexts=(512, 1 * _K, 2 * _K, 4 * _K, 16 * _K),
    prompts=(2, 4, 8),
    prompt_tokens=(64, 256, 1 * _K),
    tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *_THOUSANDS),
    moe_tokens=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *_THOUSANDS),
    steps=((1, 8, 16, 32, 64, 128, 256), (512, 2 * _K, 8 * _K), (128, 512, 2 * _K), (0, 4 * _K)),
    # Beside 66 GB of weights.
    most_step_kv_bytes=40e9,
    # 1 GB of KV.
    sentinel_decode=(64, 4 * _K),
)

CPU = Grids(
    gemm_rows=(1, 2, 4, 8, 16, 48, 128),
    unaligned_rows={},
    head_rows=(1, 2, 4, 8, 16),
    batches=(1, 2, 4, 8, 16),
    contexts=(32, 128, 512),
    most_context_tokens=8 * _K,
    chunks=(16, 64, 128),
    pasts=(0, 128, 512),
    mixed=((32, 112), (0, 256), (4, 15), (64, 256)),
    uneven_batches=(8,),
    uneven_contexts=(128,),
    prompts=(2,),
    prompt_tokens=(32,),
    tokens=(1, 16, 128),
    moe_tokens=(),
    steps=((1, 4, 16), (64, 256), (32, 128), (0,)),
    most_step_kv_bytes=64e6,
    sentinel_decode=(4, 256),
)
