"""What stands beside the pretended GPU: compiled kernels, and models and plans of a small size.

``sitecustomize`` calls each function with the module that it changes. ``PRETEND_FAULT=KERNEL:HOW``
lets a kernel go wrong.
"""
# mypy: ignore-errors
# It patches modules.

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
import tempfile
import types
from pathlib import Path

FAULT = os.environ.get("PRETEND_FAULT", ":").split(":")


def misbehave(kernel):
    """Do what the environment asks of a kernel; return whether its numbers are to be wrong."""
    name, how = FAULT
    if kernel == name and how == "crash":
        os.abort()
    return kernel == name and how == "wrong"


def gpu(torch):
    """Put a GPU in place, and the products that a CPU has not."""
    from tests.calibrate.gpu import pretend, pretend_cuda

    pretend_cuda.install()
    torch.set_num_threads(1)
    aten = torch.ops.aten

    def scaled_mm(
        a, b, scale_a, scale_b, bias=None, scale_result=None, out_dtype=None, use_fast_accum=False,
        *, out,
    ):  # fmt: skip
        assert a.dtype == b.dtype == torch.float8_e4m3fn
        assert a.stride(1) == b.stride(0) == 1
        assert out.dtype == out_dtype == torch.bfloat16
        if scale_a.dim():
            assert (scale_a.shape, scale_b.shape) == ((len(a), 1), (1, b.shape[1]))
            assert scale_a.is_contiguous()
            assert scale_b.is_contiguous()
        return out.copy_((a.float() @ b.float()) * scale_a * scale_b)

    def pack_int4(codes, tiles):
        assert codes.dtype == torch.uint8
        n, k = codes.shape[0], 2 * codes.shape[1]
        return codes.view(torch.int32).view(n // 8, k // (tiles * 16), 32, tiles // 2).clone()

    def int4_mm(x, packed, group, scale_and_zero):
        pairs = packed.reshape(8 * packed.shape[0], -1).view(torch.uint8)
        codes = torch.stack((pairs >> 4, pairs & 15), -1).flatten(1).float() - 8
        scale, zero = scale_and_zero.float().permute(2, 1, 0).repeat_interleave(group, 2)
        return (x.float() @ (codes * scale + zero).t()).to(x.dtype)

    pretend.KERNELS |= {
        aten._scaled_mm.out: scaled_mm,
        aten._convert_weight_to_int4pack.default: pack_int4,
        aten._weight_int4pack_mm.default: int4_mm,
    }


def small_models(module):
    """Models of two layers, with the names and parts of large ones."""
    real = module.load_model

    @functools.cache
    def load_model(name, where="--model", which="model"):
        model, experts = real(name, where, which), None
        if model.experts:
            shared = 32 if model.experts.shared_ffn_size else 0
            experts = dataclasses.replace(
                model.experts, count=8, per_token=2, ffn_size=32, shared_ffn_size=shared,
                layers=1 if model.mla else 2,
            )  # fmt: skip
        return dataclasses.replace(
            model, layers=2, hidden_size=64, attention_heads=4, kv_heads=4 if model.mla else 2,
            head_size=model.head_size if model.mla else 16, ffn_size=96 if model.ffn_size else 0,
            vocab_size=250, max_position_embeddings=8192, experts=experts,
        )  # fmt: skip

    module.load_model = load_model


def small_grids(module):
    module.H200 = dataclasses.replace(
        module.H200, gemm_rows=(1, 16, 32), unaligned_rows={"bf16": (17,), "fp8": (17,)},
        head_rows=(1, 8), batches=(1, 4), contexts=(16, 64), most_context_tokens=256,
        chunks=(16, 32), pasts=(0, 64), mixed=((16,), (0, 64), (4,), (16, 64)),
        uneven_batches=(4,), uneven_contexts=(32,), prompts=(2,), prompt_tokens=(16,),
        tokens=(1, 16), moe_tokens=(1, 16), steps=((1, 4), (16, 64), (16, 32), (0, 64)),
        sentinel_decode=(2, 64),
    )  # fmt: skip


def small_plan(module):
    """Plan few replays of few calls, on at most two GPUs of small models."""
    module.Protocol = functools.partial(
        module.Protocol, warm_ups=1, replays=3, fewest_replays=2, min_s=1e-5, most_calls=4,
        noisy_ratio=1e9,
    )  # fmt: skip
    real = module.ceiling_points
    module.ceiling_points = lambda dtypes, sizes, cubes, gemms, sustained: real(
        dtypes, (1, 2), (32, 64), gemms, False
    )
    module._SENTINEL_CUBE, module._MOST_TP, module._MOST_EXPERT_TP = 64, 2, 2
    module._UNEVEN, module._EIGHT_BIT_PREFILL_TP = (("llama-3.1-8b", 1),), (1,)
    # Not Triton's: its interpreter is for the check.
    module.BACKENDS = dataclasses.replace(module.BACKENDS, attention=("fa3", "flashinfer", "torch"))


def small_validation(module):
    real, replace = module.h200_plan, dataclasses.replace

    def h200_plan():
        plan = real()
        return replace(
            plan,
            limits=replace(
                plan.limits, max_num_seqs=8, max_num_batched_tokens=64, max_model_len=256,
                num_blocks=129,
            ),
            shape=replace(
                plan.shape, prompt_median=32, most_prompt=90, output_median=9, most_output=30
            ),
            other=replace(
                plan.other, prompt_median=64, most_prompt=150, output_median=6, most_output=20
            ),
            burst=12, calibration_s=1.5, replay_s=1.5,
        )  # fmt: skip

    module.h200_plan = module.PLANS["h200"] = h200_plan


def few_graphs(module):
    module.GRAPH_SIZES = (1, 2, 4, 8)


def small_trials(module):
    """Keep every kind of batch, shorter and of fewer heads."""
    real, latent = module.AttentionShape, module.LatentShape
    module.LARGE = ()
    module.AttentionShape = lambda heads, keys, size, **more: real(
        max(4, heads // 8), max(1, keys // 4), size // 4, **more
    )
    module.LatentShape = lambda heads: latent(heads // 8)
    module.LENGTHS = tuple(
        module.Lengths(one.name, tuple((min(new, 40), min(had, 90)) for new, had in one.pairs))
        for one in module.LENGTHS
    )


def small_products(module):
    module.gemm_trials = lambda kernel, device: (
        module.GemmTrial(kernel, size, device) for size in ((1, 256, 128), (17, 256, 384))
    )


def compiled_kernels(module):
    """The files of vLLM, with the project's own stand-ins in them."""
    from tests.calibrate.gpu.pretend import Pretend, forbidden, launch, on_cpu
    from tests.calibrate.kit import fake_kernels

    fa3, mla = fake_kernels.Fa3(), fake_kernels.FlashMla()

    def inner(values):
        assert all(isinstance(one, Pretend) for one in values if hasattr(one, "device"))
        return list(map(on_cpu, values))

    def at_once(function, *args, **kwargs):
        forbidden("to make a schedule")
        found = function(*inner(args), **dict(zip(kwargs, inner(kwargs.values()), strict=True)))
        return tuple(map(wrapped, found)) if isinstance(found, tuple) else wrapped(found)

    def wrapped(one):
        return one if one is None else Pretend(one)

    def fwd(**kwargs):
        given, wrong = dict(zip(kwargs, inner(kwargs.values()), strict=True)), misbehave("fa3")

        def work():
            fa3.fwd(**given)
            if wrong:
                given["out"].mul_(1.2)

        launch(work)

    def decode(*args):
        if args[-1] is None:
            return at_once(mla.dense_decode_fwd, *args)
        given = inner(args)
        return launch(lambda: mla.dense_decode_fwd(*given))

    schedule = functools.partial(at_once, fa3.get_scheduler_metadata)
    loaded = {
        module.FLASH_ATTENTION_3: types.SimpleNamespace(fwd=fwd, get_scheduler_metadata=schedule),
        module.FLASH_MLA: types.SimpleNamespace(dense_decode_fwd=decode),
    }

    def load(library):
        if FAULT == ["fa3", "dies-at-load"] and library is module.FLASH_ATTENTION_3:
            os.abort()
        return loaded[library]

    module._loaded = load
    file = Path(tempfile.gettempdir(), "pretended-kernels.so")
    file.write_bytes(b"none")
    module.Library.path = lambda self: file


def flashinfer(module):
    """The package, with the project's own stand-ins of its wrappers."""
    from tests.calibrate.gpu.pretend import forbidden, launch, on_cpu
    from tests.calibrate.kit import fake_kernels

    def of(base):
        class Wrapper(base):
            def __init__(self, *args, **kwargs):
                named = {key: on_cpu(one) for key, one in kwargs.items()}
                super().__init__(*map(on_cpu, args), **named)

            def plan(self, **kwargs):
                forbidden("to plan")
                super().plan(**{key: on_cpu(one) for key, one in kwargs.items()})

            def run(self, *args, out):
                run = super().run
                given = [tuple(map(on_cpu, x)) if type(x) is tuple else on_cpu(x) for x in args]
                misbehave("flashinfer")
                launch(lambda: run(*given, out=on_cpu(out)))

        return Wrapper

    package = types.ModuleType("flashinfer")
    for name in ("BatchDecodeWithPagedKVCacheWrapper", "BatchPrefillWithPagedKVCacheWrapper"):
        setattr(package, name, of(getattr(fake_kernels, name)))
    package.mla = types.SimpleNamespace(
        BatchMLAPagedAttentionWrapper=of(fake_kernels.BatchMLAPagedAttentionWrapper)
    )
    sys.modules["flashinfer"] = package
    sys.modules["flashinfer.utils"] = types.SimpleNamespace(determine_mla_backend=lambda _: "fa2")
    module._not_prebuilt = lambda kind, arguments: None
    module._WORKSPACE_BYTES = 1024


def quick_ops(module):
    """Small kernels in Triton's interpreter; with ``PRETEND_QUICK`` in plain torch."""
    triton(module)
    if os.environ.get("PRETEND_QUICK"):
        for name in ("rms_norm", "add_rms_norm", "qk_norm", "rope_store", "silu_mul"):
            delattr(module.TritonOps, name)  # those of TorchOps are below


def triton(module):
    """Kernels in Triton's interpreter, on the CPU's tensors."""
    import torch

    from tests.calibrate.gpu.pretend import Pretend, launch, on_cpu

    importlib.import_module("tests.calibrate.kernels.interpreter")
    from triton.runtime.interpreter import GridExecutor

    if hasattr(GridExecutor, "real"):
        return
    GridExecutor.real = GridExecutor.__call__

    def call(self, *args, **kwargs):
        if any(isinstance(one, torch.Tensor) and not isinstance(one, Pretend) for one in args):
            raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
        given = list(map(on_cpu, args))
        launch(lambda: self.real(*given, **kwargs))

    GridExecutor.__call__ = call
