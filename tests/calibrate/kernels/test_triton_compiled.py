"""The Triton kernels compile for an H200 without a GPU: no spills, wide asynchronous loads."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

from calibrate.kernels.interface import AttentionShape
from calibrate.kernels.pointwise import rope_table
from calibrate.kernels.trials import AttentionTrial, Lengths
from calibrate.kernels.triton_attention import TritonAttention
from calibrate.kernels.triton_decode import H200_SMS, PROGRAMS_PER_SM
from calibrate.kernels.triton_pointwise import TritonOps
from tests.calibrate.kernels.compiled import SHARED_BYTES_OF_A_BLOCK, Compiled, launches_compiled

CPU = torch.device("cpu")
REGISTERS_OF_A_MULTIPROCESSOR = 65_536
# What one multiprocessor must have asked for at any time: the datasheet's bandwidth of an H200,
# times a latency of 1 µs under load (assumed), over its multiprocessors.
BYTES_IN_FLIGHT = 4.8e12 * 1e-6 / H200_SMS
UNSPLIT = Lengths("unsplit", ((1, 100),) * 256)
MIXED = Lengths("split and mixed", ((1, 4000), (40, 300)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def attention(shape: AttentionShape, lengths: Lengths) -> dict[str, Compiled]:
    trial = AttentionTrial(TritonAttention(), shape, lengths, CPU)
    assert trial.refuses() is None
    trial.planned = trial.kernel.plan(shape, trial.pages.batch)
    with launches_compiled() as launched:
        trial.run()
    return {built.name: built for built in launched}


def without_spills(what: object, launched: dict[str, Compiled]) -> None:
    assert launched
    for name, built in launched.items():
        print(f"{what} {name}: {built.registers} registers, {built.shared_bytes} B shared")  # noqa: T201 - shown by -s
        assert (built.stack_bytes, built.local_bytes) == (0, 0)
        assert built.shared_bytes <= SHARED_BYTES_OF_A_BLOCK
        assert built.registers * built.warps * 32 <= REGISTERS_OF_A_MULTIPROCESSOR


@pytest.mark.parametrize(
    ("head_size", "group"),
    [
        pytest.param(64, 4, marks=pytest.mark.slow),
        pytest.param(64, 8, marks=pytest.mark.slow),
        pytest.param(128, 4, marks=pytest.mark.slow),
        (128, 8),
    ],
)
def test_attention_has_no_spills_and_loads_16_bytes_ahead(head_size: int, group: int) -> None:
    launched = attention(AttentionShape(2 * group, 2, head_size), MIXED)
    without_spills((head_size, group), launched)
    assert set(launched) == {"decode_kernel", "combine_kernel", "prefill_kernel"}
    decode, prefill = launched["decode_kernel"], launched["prefill_kernel"]
    for built, product in ((decode, "HMMA"), (prefill, "HGMMA")):
        sass = built.sass()
        assert "LDGSTS.E.BYPASS.128" in sass  # asynchronous copies of 16 bytes
        assert "LDG.E.U16" not in sass
        assert product in sass
    programs = REGISTERS_OF_A_MULTIPROCESSOR // (32 * decode.warps * decode.registers)
    assert programs >= PROGRAMS_PER_SM  # as the plan of the splits supposes
    assert programs * decode.shared_bytes > 2 * BYTES_IN_FLIGHT


@pytest.mark.slow
@pytest.mark.parametrize("heads", [(4, 4, 64), (10, 2, 80), (7, 1, 128), (64, 4, 96)])
def test_other_heads_have_no_spills(heads: tuple[int, int, int]) -> None:
    without_spills(heads, attention(AttentionShape(*heads), MIXED))


@pytest.mark.slow
@pytest.mark.parametrize("kv_dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_other_launches_have_no_spills(kv_dtype: torch.dtype) -> None:
    shape = AttentionShape(16, 2, 128, kv_dtype=kv_dtype)
    without_spills(kv_dtype, attention(shape, MIXED))
    unsplit = attention(shape, UNSPLIT)
    without_spills("unsplit", unsplit)
    assert set(unsplit) == {"decode_kernel"}


def test_no_new_batch_compiles_anew() -> None:
    shape = AttentionShape(8, 2, 64)
    kernel = TritonAttention()
    with launches_compiled() as launched:
        for count, longest in ((1, 1500), (2, 2000), (16, 4096)):
            lengths = Lengths("mixed", ((1, longest), *[(5, 20)] * count))
            trial = AttentionTrial(kernel, shape, lengths, CPU)
            trial.planned = kernel.plan(shape, trial.pages.batch)
            trial.run()
    for name in ("decode_kernel", "combine_kernel", "prefill_kernel"):
        assert len({built.cubin for built in launched if built.name == name}) == 1


def bf16(*size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.bfloat16)


def test_small_kernels_of_a_large_model_have_no_spills() -> None:
    """Widths of Llama-3-70B: 8192, 64 and 8 heads, an FFN of 28672."""
    ops, tokens = TritonOps(), 3
    qkv = bf16(tokens, 80, 128)
    query, key, value = qkv[:, :64], qkv[:, 64:72], qkv[:, 72:]
    cache = bf16(2, 16, 8, 128)
    places = torch.zeros(tokens, dtype=torch.int64)
    wide = bf16(tokens, 28672)
    with launches_compiled() as launched:
        ops.rms_norm(wide[:, :8192], bf16(8192), 1e-5, bf16(tokens, 8192))
        ops.add_rms_norm(
            bf16(tokens, 8192), bf16(tokens, 8192), bf16(8192), 1e-5, bf16(tokens, 8192)
        )
        ops.qk_norm(query, key, bf16(128), bf16(128), 1e-5)
        ops.rope_store(
            query, key, value, rope_table(10, 128, 1e4, CPU), places, places, cache, cache
        )
        ops.silu_mul(bf16(tokens, 2 * 28672), wide)
        values = torch.empty(wide.shape, dtype=torch.float8_e4m3fn)
        ops.quantise_rows(wide, values, torch.empty(tokens, 1))
    assert len(launched) == 6
    without_spills("70B", {f"{i} {built.name}": built for i, built in enumerate(launched)})
    assert all("LDG.E.128" in built.sass() for built in launched)
