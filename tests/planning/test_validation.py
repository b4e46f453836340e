"""Comparisons with measurements: errors that vanish where they must, and gaps that are named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.inputs.deployment import Deployment
from simserve.inputs.hardware_profile import load_gpu
from simserve.latency.importers.kernel_package import KernelTable, find_package
from simserve.latency.model import UNLIMITED_CONTEXT, DecodeLine
from simserve.latency.tables.curve import Limit, Shape
from simserve.latency.tables.left_out import is_inner, shapes_left_out, sizes_left_out
from simserve.latency.tables.limits import gemm_limit
from simserve.planning.validation import closed_load, offline_load, open_load
from simserve.planning.validation.attention_kernels import attention_findings
from simserve.planning.validation.declared_fit import Scalars, fit_scalars
from simserve.planning.validation.deployments import deployment_section
from simserve.planning.validation.findings import (
    Finding,
    FloatArray,
    Section,
    median_finding,
    signed_pct,
)
from simserve.planning.validation.kernels import kernel_section
from simserve.planning.validation.models import Candidate
from simserve.planning.validation.report import report_text
from simserve.planning.validation.runs import (
    deployment_of,
    read_run,
    request_section,
    requests_of,
)
from simserve.planning.validation.static_batches import add_static_batches
from simserve.planning.validation.steps import step_section
from simserve.records.step import PrefillChunk, StepShape
from simserve.traffic.segments import shared_prefix_tokens

GROUNDTRUTH = Path(__file__).resolve().parents[3] / "shared" / "groundtruth"
RUNS = GROUNDTRUTH / "llmservingsim_vllm"
ALIGNED = (1, 16, 32, 64, 128, 256)
ROUGH = (17, 33, 65, 129)
GPU = load_gpu("h200-sxm")


# -- findings


def test_errors_are_percent_of_the_measurement() -> None:
    assert signed_pct([110, 90], [100, 100]).tolist() == pytest.approx([10, -10])


@pytest.mark.parametrize(("bar", "met"), [(3.0, True), (2.0, True), (1.9, False), (None, None)])
def test_a_bar_bounds_the_size_of_the_error(bar: float | None, met: bool | None) -> None:
    one = Finding(what="", measure="", error_pct=-2.0, points=1, bar_pct=bar)
    assert one.is_met is met


def test_an_error_that_cannot_be_told_meets_no_bar() -> None:
    assert Finding(what="", measure="", error_pct=float("nan"), points=1, bar_pct=9).is_met is False


def test_a_missed_bar_is_printed_as_missed_and_a_gap_with_its_reason() -> None:
    section = Section("kernel", [median_finding("GEMM", [5.0, -7.0, 6.0], 4.0)])
    section.skipped.append("attention: no table")
    text = report_text([section])
    assert "| GEMM | median size | 6.00 | 6.8 | 33 | 3 | 4 | **missed** |" in text
    assert "- skipped: attention: no table" in text


# -- kernels


def test_a_line_through_its_points_is_found_again_whichever_is_left_out() -> None:
    points = {m: 1e-3 + m * 1e-6 for m in ALIGNED} | {m: 3e-3 + m * 1e-6 for m in ROUGH}
    pairs = list(sizes_left_out(points, lambda _: 0.0))
    assert len(pairs) == len(points) - 2  # the ends are not asked for
    inner = [(got, truth) for got, truth in pairs if truth < 3e-3 or 3.03e-3 < truth < 3.1e-3]
    for got, truth in inner:
        assert got == pytest.approx(truth)


def test_a_shape_left_out_is_found_again_if_all_use_the_same_share_of_their_limit() -> None:
    sizes = (1024, 2048, 4096)
    limits: dict[Shape, Limit] = {
        (n, k): gemm_limit(n, k, 2.0, 1e15, GPU) for n in sizes for k in sizes
    }
    shapes: dict[Shape, dict[int, float]] = {
        shape: {m: limit(m) / 0.5 for m in (*ALIGNED, *ROUGH)} for shape, limit in limits.items()
    }
    inner = [shape for shape in shapes if is_inner(shape, shapes)]
    assert inner == [(2048, 2048)]
    for got, truth in shapes_left_out(shapes, inner, limits):
        assert got == pytest.approx(truth)


def test_attention_that_is_linear_in_batch_and_context_is_found_again() -> None:
    rows = [
        (batch, step, 1e-3 * (20 + batch + batch * (step + 1) / 100))
        for batch in (1, 2, 4, 8)
        for step in (15, 31, 63, 127)
    ]
    batch, step, latency = (np.array(column) for column in zip(*rows, strict=True))
    names = {"num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "window_size": 0}
    columns = {key: np.full(len(rows), value) for key, value in names.items()}
    columns |= {"kv_cache_dtype": np.full(len(rows), "bfloat16", dtype=object)}
    decode = columns | {"batch_size": batch, "step": step, "latency": latency}
    prefill = columns | {"batch_size": np.ones(len(rows)), "isl": batch, "step": step * 0}
    prefill |= {"latency": 1e-3 * (20 + batch) ** 2}
    section = Section("kernel")
    tables = [KernelTable(Path(), "", "", one) for one in (decode, prefill)]
    attention_findings(tables[0], tables[1], GPU, 128, section)
    found = {one.what: one.error_pct for one in section.findings}
    # Not quite: the larger batch is asked below its first context, where its time is held.
    assert found["decode attention, a batch left out"] == pytest.approx(0, abs=0.3)
    assert found["decode attention, a context left out"] == pytest.approx(0, abs=1e-9)
    assert found["prefill attention of one prompt, a length left out"] == pytest.approx(0, abs=1e-9)


@pytest.mark.skipif(find_package() is not None, reason="aiconfigurator-core is installed")
def test_without_the_package_kernels_are_skipped_and_why() -> None:
    (reason,) = kernel_section().skipped
    assert reason == "aiconfigurator-core is not installed: pip install 'simserve[kernels]'"


# -- steps


class Ideal:
    """A latency model that knows the measured steps: 10 ms and 0.1 ms for each decode."""

    def step_s(self, shape: StepShape) -> float:
        return 10e-3 + 1e-4 * shape.decode_seqs


def ideal(model: str, gpu: str, tp: int, section: Section) -> Iterator[Candidate]:
    assert (model, gpu, tp, section.title) == ("llama-2-70b", "h100-sxm", 4, "step")
    yield Candidate("ideal", Ideal())


def traced_steps(folder: Path) -> Path:
    blis = folder / "blis_vllm_h100"
    blis.mkdir(parents=True)
    steps = ["gap_steps,mean_step_ms,decode_requests,prefill_requests"]
    steps += [f"1,{10 + 0.1 * decodes},{decodes},0" for decodes in (1, 8, 40)]
    steps += ["1,77,8,1", "13,77,8,0", "1,177,8,0"]  # with a prefill, over a long gap, idle
    name = "steps_llama-2-70b_tp4_codegen.csv.gz"
    (blis / name).write_bytes(gzip.compress("\n".join(steps).encode()))
    (blis / "latency_distributions.csv").write_text(
        "run,stage,prompt_tokens_mean,output_tokens_requested\n"
        "20260217-203421-llama-2-70b-hf-tp4-codegen,all,593.5,247\n"
    )
    return folder


def test_only_usable_decode_steps_are_compared(tmp_path: Path) -> None:
    section = step_section(traced_steps(tmp_path), ideal)
    assert [one.points for one in section.findings] == [3, 3]
    assert [one.error_pct for one in section.findings] == pytest.approx([0, 0], abs=1e-9)
    assert len(section.skipped) == 1 and section.skipped[0].startswith("splitwise_dgx: no folder")


def test_larger_static_batches_are_predicted_from_batch_1(tmp_path: Path) -> None:
    columns = "model,gpu,tp,input_tokens_each,batch_size,output_tokens_each"
    rows = [f"{columns},prefill_ms_median,decode_step_ms_median"]

    class Halved:
        """Half of what a prompt and a decode take, without the engine's 20 ms."""

        def step_s(self, shape: StepShape) -> float:
            return 0.5e-3 * (100 + shape.tokens + shape.context_tokens / 100)

    for batch, prompt in ((1, 100), (1, 500), (1, 2000), (2, 500), (16, 500)):
        prefill = (PrefillChunk(prompt, 0),) * batch
        decodes = StepShape(batch, batch * (prompt + 50))
        times = [20 + 2e3 * Halved().step_s(shape) for shape in (StepShape(0, 0, prefill), decodes)]
        rows.append(f"llama2-70b,a100-80gb,2,{prompt},{batch},100,{times[0]},{times[1]}")
    rows.append("llama2-70b,a100-80gb,2,2000,64,100,1,60")  # quicker than the GPU can be
    (tmp_path / "measured.csv").write_text("\n".join(rows))
    section = Section("step")
    add_static_batches(tmp_path, lambda *_: iter([Candidate("tables", Halved())]), section)
    found = {one.what: one for one in section.findings if one.measure == "median size"}
    assert [one.points for one in found.values()] == [2, 2]
    assert all(one.error_pct < 3 and one.is_met for one in found.values())
    assert section.listings[0].rows[0][:3] == ("2", "64", "2000")
    assert "on the 3 rows of batch 1" in section.fitted[0]


# -- requests


def small_run(folder: Path) -> Path:
    run = folder / "small_run"
    run.mkdir(parents=True)
    (run / "requests.csv.gz").write_bytes(
        gzip.compress(
            b"request,input_tokens,output_tokens,queued_s\n0,40,5,0.5\n1,32,1,0.0\n2,8,3,0.25\n"
        )
    )
    blocks = [{"request": 0, "hash_ids": [7, 8]}, {"request": 1, "hash_ids": [7, 9]}]
    blocks.append({"request": 2, "hash_ids": []})
    lines = "\n".join(json.dumps(one) for one in blocks)
    (run / "prefix_blocks16.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    engine = {
        "model": "meta-llama/Llama-3.1-8B",
        "gpu": "RTX4090",
        "engine_kwargs": {
            "tensor_parallel_size": 1,
            "max_num_seqs": 256,
            "max_num_batched_tokens": 2048,
            "max_model_len": 32768,
        },
        "kv_cache": {"num_gpu_blocks": 2588},
        "resolved_config_excerpt": {"scheduler": {"async_scheduling": False}},
    }
    (run / "engine.json").write_text(json.dumps(engine))
    return run


def test_requests_enter_when_the_engine_queued_them_and_share_their_leading_blocks(
    tmp_path: Path,
) -> None:
    requests = requests_of(read_run(small_run(tmp_path)))
    assert (requests.arrival_ps / 1e12).tolist() == [0.0, 0.25, 0.5]
    assert requests.prompt_tokens.tolist() == [32, 8, 40]
    table = requests.segments
    assert table is not None
    first, second, third = (
        table.segment[start:end].tolist()
        for start, end in zip(table.offsets[:-1], table.offsets[1:], strict=True)
    )
    assert first == [7, 9] and third[:2] == [7, 8] and len(third) == 3
    assert not {second[0], third[2]} & {7, 8, 9} and second[0] != third[2]
    assert table.tokens.tolist() == [16, 16, 8, 16, 16, 8]


def test_the_deployment_is_the_recorded_one(tmp_path: Path) -> None:
    run = read_run(small_run(tmp_path))
    deployment, untold = deployment_of(run)
    assert deployment.engine.num_blocks == 2588 and not deployment.engine.async_scheduling
    assert (deployment.gpu.name, deployment.model.name) == ("rtx-4090", "llama-3.1-8b")
    assert untold == []
    run.engine.update(kv_cache=None, resolved_config_excerpt={})
    deployment, untold = deployment_of(run)
    assert deployment.engine.async_scheduling
    assert [one.split(" ")[0] for one in untold] == ["KV", "async"]


@pytest.mark.slow
@pytest.mark.skipif(not RUNS.is_dir(), reason="the measured runs are not beside the checkout")
def test_measured_runs_are_compared_whole_and_closer_by_tables_than_by_roofline(
    tmp_path: Path,
) -> None:
    section = request_section(GROUNDTRUTH, tmp_path)
    assert section.skipped == []
    assert len([one for one in section.fitted if "by half of the run" in one]) == 2
    means = {
        one.what: abs(one.error_pct)
        for one in section.findings
        if one.measure.startswith("of the mean")
    }
    assert len(means) == 2 * 5 * 3  # runs, models and fits, latencies
    for what, error_pct in means.items():
        if "(roofline)" in what:
            assert means[what.replace("roofline", "layer tables")] < error_pct
            fitted = what.replace("roofline", "two scalars of its first half")
            assert means[fitted] < 2
    buckets = [one for one in section.findings if "decode steps of" in one.what]
    assert len([one for one in buckets if one.bar_pct is not None]) == 4 + 5
    titles = [one.title for one in section.listings]
    assert sum("next measurements" in title for title in titles) == 2


def test_two_scalars_are_found_again_from_the_means_they_make() -> None:
    def means(scalars: Scalars) -> FloatArray:
        decode, prefill = scalars
        return np.array([100 * prefill + 20 * decode, 10 * decode + prefill, 900 * decode])

    found = fit_scalars(means, means(Scalars(0.93, 1.05)))
    assert found.decode == pytest.approx(0.93, abs=0.005)
    assert found.prefill == pytest.approx(1.05, abs=0.02)


# -- deployments


def test_an_open_load_has_equal_gaps_by_stage_and_cycles_through_its_prompts() -> None:
    row = {
        "stage_rates_rps": "5/10",
        "stage_seconds": "60/30",
        "system_prompt_tokens": "100",
        "output_tokens": "247",
    }
    requests = open_load.requests_of(row, 580, 604)
    arrival_s = requests.arrival_ps / 1e12
    assert len(requests) == 600
    assert np.diff(arrival_s[:300]) == pytest.approx(0.2)
    assert np.diff(arrival_s[300:]) == pytest.approx(0.1) and arrival_s[300] == 60
    assert (requests.prompt_tokens.min(), requests.prompt_tokens.max()) == (580, 604)
    shared = shared_prefix_tokens(requests)
    assert (shared[100:] == requests.prompt_tokens[100:]).all()  # every prompt came before
    assert (shared[10:100] == 100).all() and (shared[:10] == 0).all()  # only the system prompt


def test_a_closed_load_is_ten_prompts_a_user_of_four_fifths_to_all_of_the_length() -> None:
    row = {"concurrency": "8.0", "isl": "1024", "osl": "512"}
    requests = closed_load.requests_of(row)
    assert requests.users == 8 and len(requests) == 80
    assert 819 <= requests.prompt_tokens.min() <= requests.prompt_tokens.max() <= 1024
    assert 410 <= requests.output_tokens.min() <= requests.output_tokens.max() <= 512


def test_a_deployment_in_four_bits_has_its_own_bytes() -> None:
    row = {
        "model": "meta-llama/Llama-3.1-70B",
        "gpu": "b200_sxm",
        "tp_size": "2.0",
        "concurrency": "8",
        "isl": "1024",
        "osl": "1024",
        "gemm_quant_mode": "nvfp4",
    }
    deployment = closed_load.deployment_of(row)
    assert deployment.model.weights is not None and deployment.model.weights.method == "nvfp4"
    assert deployment.engine.max_num_seqs == 8 and not deployment.engine.enable_prefix_caching


def few_users(ttft: float, tpot: float, more_ttft_ms: float = 0.0) -> list[closed_load.Compared]:
    """Return rows whose truth is so many times what is predicted, and a little to either side."""
    return [
        closed_load.Compared(
            {
                "concurrency": "4",
                "ttft_ms": str(ttft * noise * 100 + more_ttft_ms),
                "tpot_ms": str(tpot * noise * 10),
            },
            ttft_ms=100.0,
            tpot_ms=10.0,
        )
        for noise in (0.98, 1.0, 1.02)
    ]


def test_a_factor_is_fitted_only_where_rows_with_few_users_miss_the_bar_of_tpot() -> None:
    fit, told = closed_load.fit_of(few_users(1.1, 1.05, more_ttft_ms=60.0))
    assert fit == closed_load.Fit() and told.startswith("nothing; rows with up to 8 users err by")
    fit, told = closed_load.fit_of(few_users(1.25, 1.25))
    assert fit.step_factor == pytest.approx(1.25) and fit.request_ms == 0
    assert "every step takes 1.250" in told
    assert closed_load.fit_of([])[0] == closed_load.Fit()


def test_a_fit_moves_the_rows_that_it_was_not_fitted_on() -> None:
    row = few_users(1.0, 1.0)[0]
    assert row.fitted(closed_load.Fit(step_factor=2.0)).ttft_ms == 200.0
    assert row.fitted(closed_load.Fit(step_factor=2.0)).tpot_ms == 20.0
    later = row.fitted(closed_load.Fit(request_ms=7.0))
    assert (later.ttft_ms, later.tpot_ms) == (107.0, 10.0)


def static_batches(folder: Path, latency_s: float) -> Section:
    lines = ["engine,gpu,tp,model,input_tokens,output_tokens,batch,latency_s"]
    lines += [f"vLLM,A100,1,meta-llama/Meta-Llama-3-8B,128,128,16,{latency_s}"]
    lines += [
        "vLLM,AMD MI250,1,meta-llama/Meta-Llama-3-8B,128,128,16,1",
        "vLLM,A100,1,me/x,1,1,1,1",
    ]
    path = folder / "offline_static_batch.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    section = Section("deployment")
    offline_load.add_static(folder, section)
    return section


def test_a_static_batch_that_takes_what_is_predicted_has_no_error(tmp_path: Path) -> None:
    first = static_batches(tmp_path, 1.0)
    predicted_s = 1 + first.findings[1].error_pct / 100
    again = static_batches(tmp_path, predicted_s)
    assert again.findings[1].error_pct == pytest.approx(0, abs=1e-6)
    assert again.findings[1].bar_pct is None and "a100-40gb-sxm" in again.findings[1].what
    assert "1 rows are not compared" in again.notes[0] and "me/x" in again.skipped[0]


def test_a_throughput_is_that_of_all_requests_at_once(tmp_path: Path) -> None:
    class Profiles:
        """Every step takes a second."""

        def model(self, deployment: Deployment) -> Seconds:
            return Seconds()

    head = "gpu,model,weights,parallel,gpus,input_tokens,output_tokens,output_tok_s_total,requests"
    # 32 prompts of 512 tokens are two steps of 8192 and, as the first 16 decode in the second,
    # a third: the last output token ends step 22.
    rows = [f"H200,Llama-3.1-8B,FP8,TP1,1,512,20,{32 * 20 / 22},32", "H200,x,FP8,DEP8,8,1,1,1,1"]
    (tmp_path / "max_throughput.csv").write_text("\n".join([head, *rows]))
    section = Section("deployment")
    offline_load.add_throughput(tmp_path, Profiles(), section)  # type: ignore[arg-type]
    assert section.findings[1].error_pct == pytest.approx(0, abs=1e-6)
    assert "1 rows are not compared" in section.notes[0]


class Seconds:
    """A latency model whose steps take a second."""

    reads_contexts = False

    def step_s(self, shape: StepShape) -> float:
        return 1.0

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        return DecodeLine(10**12, 0, UNLIMITED_CONTEXT, 0)


def test_a_folder_that_nobody_knows_is_named(tmp_path: Path) -> None:
    (tmp_path / "groundtruth" / "my_server").mkdir(parents=True)
    section = deployment_section(tmp_path / "groundtruth", tmp_path)
    assert "my_server: no comparison for a folder of this name" in section.skipped


# -- the command


def test_without_ground_truth_every_level_is_skipped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simserve.planning.validation.kernels.find_package", lambda: None)
    done = CliRunner().invoke(app, ["validate", "--groundtruth", str(tmp_path)])
    assert done.exit_code == 0
    for title in ("kernel", "step", "request", "deployment"):
        level = done.stdout.partition(f"## {title}\n")[2].partition("##")[0]
        assert "- skipped: " in level
    assert "0 of 0 bars met" in done.stderr


@pytest.mark.parametrize("words", ["profile build", "profile import", "profile fit", "validate"])
def test_help_fits_80_columns_and_has_an_example(words: str) -> None:
    done = CliRunner().invoke(app, [*words.split(), "--help"])
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"  simserve {words}" in done.stdout


def test_profile_import_writes_a_folder_and_names_what_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["profile", "import", "vidur", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 2 and "allowed: llmservingsim" in done.stderr
