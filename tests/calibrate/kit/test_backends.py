from __future__ import annotations

import itertools
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from calibrate.kernels import (  # noqa: E402
    fa3,
    flashinfer_backend,
    flashmla,
    libraries,
    reference,
    trials,
)
from calibrate.kernels.interface import AttentionShape  # noqa: E402
from calibrate.kernels.latent import LatentShape, TorchLatent  # noqa: E402
from tests.calibrate.kit import fake_kernels  # noqa: E402
from tests.calibrate.kit.batches import Lengths, lengths, numbers, paged  # noqa: E402

FP8 = torch.float8_e4m3fn
ANY_NEW = st.one_of(st.just(1), st.integers(2, 9))
PAGED: dict[str, Any] = {
    "fa3": lambda: fa3.FlashAttention3(fake_kernels.Fa3()),
    "flashinfer": lambda: flashinfer_backend.FlashInfer(fake_kernels.flashinfer),
}
LATENT: dict[str, Any] = {
    "fa3": lambda: fa3.FlashAttention3Latent(fake_kernels.Fa3()),
    "flashmla": lambda: flashmla.FlashMla(fake_kernels.FlashMla()),
    "flashinfer": lambda: flashinfer_backend.FlashInferMla(fake_kernels.flashinfer),
    "torch": TorchLatent,
}
torch.set_num_threads(1)  # small tensors on a shared machine
few = settings(max_examples=10)


def attended(kernel: Any, shape: AttentionShape, drawn: Lengths, seed: int = 0) -> tuple[Any, Any]:
    """Return what a kernel makes of random numbers, and the reference."""
    batch, blocks = paged(drawn, shape.block_size, seed)
    assert kernel.refuses(shape, batch) is None
    query = numbers(batch.tokens, shape.heads, shape.head_size, dtype=shape.dtype, seed=seed)
    cache = (blocks, shape.block_size, shape.kv_heads, shape.head_size)
    keys, values = (numbers(*cache, dtype=shape.kv_dtype, seed=seed + i) for i in (1, 2))
    out = torch.full_like(query, torch.nan)
    kernel.run(kernel.plan(shape, batch), query, keys, values, out)
    if isinstance(kernel, fa3.FlashAttention3) and shape.kv_dtype == FP8:
        query = query.to(FP8)  # that is what it multiplies
    return out, reference.attention(shape, batch, query, keys, values)


def latently(kernel: Any, shape: LatentShape, drawn: Lengths) -> tuple[Any, Any]:
    batch, blocks = paged(drawn, shape.block_size)
    assert kernel.refuses(shape, batch) is None
    query = numbers(batch.tokens, shape.heads, shape.row_size)
    cache = numbers(blocks, shape.block_size, shape.row_size, seed=1)
    out = torch.full((batch.tokens, shape.heads, shape.latent_size), torch.nan).bfloat16()
    kernel.run(kernel.plan(shape, batch), query, cache, out)
    return out, reference.latent_attention(batch, query, cache, 512, shape.scale)


def assert_rounded(out: Any, expected: Any) -> None:
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-6)  # bf16's rounding


@pytest.mark.parametrize("name", PAGED)
@given(
    lengths(ANY_NEW),
    st.sampled_from([(4, 2), (3, 3), (6, 1)]),
    st.sampled_from([torch.bfloat16, FP8]),
)
@few
def test_any_batch_is_handed_over_as_it_is(
    name: str, drawn: Lengths, heads: tuple[int, int], kv_dtype: Any
) -> None:
    shape = AttentionShape(*heads, head_size=16, kv_dtype=kv_dtype)
    assert_rounded(*attended(PAGED[name](), shape, drawn))


@pytest.mark.parametrize("name", LATENT)
@given(lengths(st.just(1), most=3), st.integers(1, 3))
@few
def test_latent_decodes_are_handed_over_as_they_are(name: str, drawn: Lengths, heads: int) -> None:
    assert_rounded(*latently(LATENT[name](), LatentShape(heads), drawn))


@pytest.mark.parametrize("name", ["fa3", "flashinfer", "torch"])
def test_latent_prefills_are_causal(name: str) -> None:
    assert_rounded(*latently(LATENT[name](), LatentShape(2), Lengths((1, 5, 3), (7, 9, 3))))


@pytest.mark.parametrize(
    ("family", "name"),
    [*(("attention", each) for each in PAGED), ("mla", "fa3"), ("mla", "flashmla")],
)
def test_the_trials_of_a_gpu_pass_with_changed_lengths_too(family: str, name: str) -> None:
    """What ``calibrate check`` does on a GPU: the same call again after its tensors changed."""
    of_paged, cpu = family == "attention", torch.device("cpu")
    kernel = (PAGED if of_paged else LATENT)[name]()
    found = (trials.attention_trials if of_paged else trials.latent_trials)(kernel, cpu)
    served = [trial for trial in found if trial.refuses() is None]
    assert len(served) >= 2
    for trial, seed in itertools.product(served, (1, 2)):
        trial.fill(torch.Generator().manual_seed(seed))
        trial.run()
        assert trial.error() <= trial.limit, trial.case


def test_flashinfer_keeps_a_wrapper_until_its_plan_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Event:
        read = False

        def record(self) -> None: ...

        def query(self) -> bool:
            return self.read

    monkeypatch.setattr(torch.cuda, "Event", Event)
    kernel, gpu = flashinfer_backend.FlashInfer(fake_kernels.flashinfer), torch.device("cuda")
    plans = [flashinfer_backend.Planned(None, []) for _ in range(3)]
    for planned in plans[:2]:
        kernel._mark(planned, gpu)
    assert [id(each) for each in kernel._in_flight] == [id(each) for each in plans[:2]]
    Event.read = True
    kernel._mark(plans[2], gpu)
    assert [id(each) for each in kernel._in_flight] == [id(plans[2])]


def test_flashmla_refuses_uneven_queries_and_other_blocks() -> None:
    kernel, (batch, _) = LATENT["flashmla"](), paged(Lengths((1, 2), (4, 4)), 64)
    assert "same number of queries" in kernel.refuses(LatentShape(2), batch)
    even, _ = paged(Lengths((1, 1), (4, 4)), 64)
    assert "block size" in kernel.refuses(LatentShape(2, block_size=16), even)
    assert "sizes" in kernel.refuses(LatentShape(2, latent_size=256), even)


@pytest.mark.parametrize("name", PAGED)
def test_dtypes_that_a_kernel_lacks_are_refused(name: str) -> None:
    kernel, (batch, _) = PAGED[name](), paged(Lengths((1,), (4,)), 16)
    single = AttentionShape(2, 1, 16, dtype=torch.float32, kv_dtype=torch.float32)
    assert "queries are" in kernel.refuses(single, batch)
    crossed = AttentionShape(2, 1, 16, kv_dtype=torch.float16)
    assert "keys are" in kernel.refuses(crossed, batch)


def test_fa3_refuses_sizes_that_it_was_not_compiled_for() -> None:
    kernel, (batch, _) = PAGED["fa3"](), paged(Lengths((1,), (4,)), 16)
    assert "head size" in kernel.refuses(AttentionShape(2, 1, 512), batch)
    assert "head size" in kernel.refuses(AttentionShape(2, 1, 100), batch)
    assert "block size" in kernel.refuses(AttentionShape(2, 1, 128, block_size=8), batch)


@pytest.mark.parametrize(("new", "splits"), [((1,) * 512, 32), ((1,) * 513, 0), ((600, 1), 0)])
def test_fa3_bounds_the_splits_of_steps_that_vllm_would_capture(
    new: tuple[int, ...], splits: int
) -> None:
    ops = fake_kernels.Fa3()
    batch, _ = paged(Lengths(new, new), 16)
    planned = fa3.FlashAttention3(ops).plan(AttentionShape(2, 1, 16), batch)
    assert (planned.splits, ops.scheduled[0]["num_splits"]) == (splits, splits)


def test_fa3_schedules_for_the_dtype_of_the_cache() -> None:
    ops = fake_kernels.Fa3()
    batch, _ = paged(Lengths((1, 4), (20, 9)), 16)
    fa3.FlashAttention3(ops).plan(AttentionShape(8, 2, 32, kv_dtype=FP8), batch)
    told = ops.scheduled[0]
    assert told["qkv_dtype"] == FP8
    assert (told["num_heads"], told["num_heads_k"], told["page_size"]) == (8, 2, 16)
    assert (told["headdim"], told["headdim_v"]) == (32, 32)
    assert (told["max_seqlen_q"], told["max_seqlen_k"]) == (4, 20)


def test_fa3_latent_schedules_one_key_head_with_wide_values() -> None:
    ops = fake_kernels.Fa3()
    batch, _ = paged(Lengths((1,), (70,)), 64)
    fa3.FlashAttention3Latent(ops).plan(LatentShape(16), batch)
    told = ops.scheduled[0]
    assert (told["num_heads"], told["num_heads_k"], told["page_size"]) == (16, 1, 64)
    assert (told["headdim"], told["headdim_v"]) == (64, 512)


@pytest.mark.parametrize("name", ["fa3", "flashmla"])
def test_a_new_plan_stays_in_the_memory_that_a_graph_knows(name: str) -> None:
    kernel, shape = LATENT[name](), LatentShape(2)
    batch, _ = paged(Lengths((1, 1), (5, 9)), 64)
    planned = kernel.plan(shape, batch)
    held = [planned.metadata] if name == "fa3" else [planned.tiles, planned.splits]
    before = [(each.data_ptr(), each.clone()) for each in held]
    kernel.replan(planned, paged(Lengths((1, 1), (30, 9)), 64)[0])
    assert [each.data_ptr() for each in held] == [pointer for pointer, _ in before]
    assert any(not torch.equal(each, old) for each, (_, old) in zip(held, before, strict=True))


@pytest.mark.parametrize("name", PAGED)
def test_a_replayed_call_follows_the_contents_of_its_tensors(name: str) -> None:
    """The tensors of a batch change in place, then ``replan``, then the same call again."""
    kernel, shape = PAGED[name](), AttentionShape(4, 2, 16)
    batch, blocks = paged(Lengths((1, 1, 1), (33, 40, 20)), 16)
    planned = kernel.plan(shape, batch)
    later, _ = paged(Lengths((1, 1, 1), (5, 17, 33)), 16, seed=3)
    batch.context_lens.copy_(later.context_lens)
    batch.block_table[:, : later.block_table.shape[1]] = later.block_table
    now = replace(batch, context_tokens=later.context_tokens)
    kernel.replan(planned, now)
    query = numbers(3, 4, 16)
    keys, values = (numbers(blocks, 16, 2, 16, seed=i) for i in (1, 2))
    out = torch.full_like(query, torch.nan)
    kernel.run(planned, query, keys, values, out)
    assert_rounded(out, reference.attention(shape, now, query, keys, values))


def test_flashinfer_keeps_buffers_for_graphs_of_decodes_alone() -> None:
    kernel, shape = PAGED["flashinfer"](), AttentionShape(4, 2, 16)
    (decode,) = kernel.plan(shape, paged(Lengths((1, 1), (4, 50)), 16)[0]).parts
    assert decode.wrapper.options["use_cuda_graph"]
    assert decode.wrapper.options["use_tensor_cores"]
    mixed = kernel.plan(shape, paged(Lengths((1, 1, 6), (4, 50, 6)), 16)[0]).parts
    assert [part.is_decode for part in mixed] == [True, False]
    assert not mixed[0].wrapper.options["use_cuda_graph"]
    assert (mixed[1].seqs, mixed[1].rows) == (slice(2, 3), slice(2, 8))


def test_flashinfer_names_the_module_that_would_have_to_be_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = {
        "flashinfer.jit.attention.modules": types.SimpleNamespace(
            get_batch_prefill_uri=lambda *given: "_".join(str(each) for each in given[4:6])
        ),
        "flashinfer.jit.env": types.SimpleNamespace(FLASHINFER_AOT_DIR=tmp_path),
    }
    monkeypatch.setattr("importlib.import_module", made.__getitem__)
    monkeypatch.setenv("FLASHINFER_DISABLE_JIT", "1")
    (tmp_path / "torch.int32_128").mkdir()
    (tmp_path / "torch.int32_128" / "torch.int32_128.so").touch()
    kernel, (batch, _) = flashinfer_backend.FlashInfer(), paged(Lengths((1,), (4,)), 16)
    assert kernel.refuses(AttentionShape(4, 2, 128), batch) is None
    reason = kernel.refuses(AttentionShape(4, 2, 64), batch)
    assert reason is not None
    assert reason.startswith("no prebuilt module torch.int32_64")


MISSING = [
    fa3.FlashAttention3,
    fa3.FlashAttention3Latent,
    flashmla.FlashMla,
    flashinfer_backend.FlashInfer,
    flashinfer_backend.FlashInferMla,
]


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that says that it has a Hopper GPU, and no kit."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.delenv(libraries.KIT_VARIABLE, raising=False)
    return monkeypatch


@pytest.mark.parametrize("kernel", MISSING)
def test_without_a_gpu_that_is_the_reason(kernel: Any, hopper: pytest.MonkeyPatch) -> None:
    hopper.setattr(torch.cuda, "is_available", lambda: False)
    assert kernel().missing() == "no CUDA device"


@pytest.mark.parametrize("kernel", MISSING[:3])
def test_each_thing_that_is_missing_is_named(kernel: Any, hopper: pytest.MonkeyPatch) -> None:
    assert "calibrate.kit unpack" in kernel().missing()
    hopper.setattr(torch, "__version__", "2.10.1+cu129")
    assert kernel().missing() == "needs torch 2.11, this is 2.10.1+cu129"
    hopper.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert kernel().missing() == "needs compute capability 9.x, this GPU has 8.0"


def test_a_file_that_torch_cannot_load_is_said(hopper: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / libraries.FLASH_ATTENTION_3.file).write_bytes(b"not a library")
    hopper.setenv(libraries.KIT_VARIABLE, str(tmp_path))
    reason = fa3.FlashAttention3().missing()
    assert reason is not None
    assert reason.startswith("torch cannot load _vllm_fa3_C.abi3.so: ")
    assert "\n" not in reason


def test_the_kit_is_preferred_to_an_installed_vllm(
    hopper: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "vllm")])
    hopper.setattr("importlib.util.find_spec", lambda _: found)
    library, folders = libraries.FLASH_ATTENTION_3, ("vllm/vllm_flash_attn", "kit/kernels")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / library.file).touch()
    assert library.path() == tmp_path / folders[0] / library.file
    hopper.setenv(libraries.KIT_VARIABLE, str(tmp_path / "kit"))
    assert library.path() == tmp_path / folders[1] / library.file


def test_flashinfer_that_is_not_installed_is_said(hopper: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    hopper.setattr("importlib.import_module", absent)
    reason = flashinfer_backend.FlashInfer().missing()
    assert reason == "flashinfer cannot be imported: No module named 'flashinfer'"


def test_shapes_of_latent_attention_are_those_of_deepseek() -> None:
    shape = LatentShape(16)
    assert (shape.row_size, shape.kv_bytes_per_token) == (576, 1152)
    assert shape.scale == pytest.approx(192**-0.5)


def test_pages_are_those_of_the_table_in_order() -> None:
    batch, _ = paged(Lengths((1, 3, 1), (33, 16, 17)), 16, seed=1)
    pages = flashinfer_backend._pages(batch, slice(0, 3), 16)
    assert pages.start.tolist() == [0, 3, 4, 6]
    assert pages.last_tokens.tolist() == [1, 16, 1]
    rows = [batch.block_table[row, :count].tolist() for row, count in enumerate((3, 1, 2))]
    assert pages.block_ids.tolist() == list(itertools.chain(*rows))
