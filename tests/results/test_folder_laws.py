"""A sound result keeps every law; a folder that somebody has changed is caught by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import scenario_from_dict
from simserve.planning.run_scenario import run
from simserve.results.folder_laws import ALL_LAWS, check_folder

REQUESTS, STEPS = "requests.parquet", "steps.parquet"


def saved(folder: Path, **deployment: Any) -> Path:
    """Run a scenario under memory pressure, so that requests are preempted; save it."""
    scenario = scenario_from_dict(
        {
            "workload": {
                "arrivals": {"rate_per_s": 60},
                "prompt_tokens": {"median": 300, "p95": 1500},
                "output_tokens": {"median": 60, "p95": 200},
                "num_requests": 120,
                "prefix": {"count": 3, "tokens": 100},
            },
            "deployment": {
                "model": "llama-3.1-8b",
                "gpu": "h100-sxm",
                "num_gpu_blocks": 600,
                "max_model_len": 8000,
                **deployment,
            },
            "slo": "ttft:500 tpot_p95:50",
        }
    )
    run(scenario).save(folder)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("sound"), async_scheduling=False)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without preemptions, in which every token of a prompt is computed or cached once."""
    return saved(tmp_path_factory.mktemp("roomy"), num_gpu_blocks=20_000)


@pytest.mark.parametrize(
    "deployment",
    [
        {"async_scheduling": True},
        {"async_scheduling": False},
        {"replicas": 3, "router": "least-loaded"},
        {"scheduler": "static", "num_gpu_blocks": None},
        {"scheduler": "continuous"},
        {"max_num_seqs": 4},
        {"max_model_len": 700},
        {"enable_prefix_caching": False},
        {"scheduling_policy": "priority"},
    ],
    ids=str,
)
def test_every_sound_run_keeps_every_law(tmp_path: Path, deployment: dict[str, Any]) -> None:
    given = {key: value for key, value in deployment.items() if value is not None}
    assert [str(one) for one in check_folder(saved(tmp_path, **given))] == []


def test_a_run_without_any_pause_or_with_long_ones_keeps_the_laws(tmp_path: Path) -> None:
    for name, rate_per_s in (("slow", 0.5), ("fast", 500)):
        scenario = scenario_from_dict(
            {
                "workload": {
                    "arrivals": {"rate_per_s": rate_per_s},
                    "prompt_tokens": 50,
                    "output_tokens": {"median": 5, "p95": 20},
                    "num_requests": 60,
                },
                "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"},
            }
        )
        run(scenario).save(tmp_path / name)
        assert check_folder(tmp_path / name) == []


def change_column(folder: Path, file: str, column: str, change: Callable[[Any], None]) -> None:
    table = pq.read_table(folder / file)
    values = table[column].to_numpy().copy()
    change(values)
    at = table.column_names.index(column)
    changed = table.set_column(at, column, pa.array(values))
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), folder / file)


def change_run(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "run.json").read_text())
    change(content)
    (folder / "run.json").write_text(json.dumps(content))


def add(at: int | slice, by: float) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        values[at] += by

    return change


def put(at: int, value: float | str) -> Callable[[Any], None]:
    def change(values: Any) -> None:
        values[at] = value

    return change


def close_a_gap(content: dict[str, Any]) -> None:
    gaps = content["token_gaps"]
    gaps["step"][0] = gaps["previous_step"][0] + 1


def other_seed(content: dict[str, Any]) -> None:
    content["facts"]["resolved"]["seed"] += 1


def better_ttft(content: dict[str, Any]) -> None:
    content["bench"]["mean_ttft_ms"] *= 0.9


CORRUPTIONS: dict[str, Callable[[Path], None]] = {
    "well-formed": lambda f: change_column(f, REQUESTS, "replica", put(0, 7)),
    "requests-conserved": lambda f: change_column(f, REQUESTS, "preemptions", add(3, 1)),
    "tokens-conserved": lambda f: change_column(f, REQUESTS, "generated_tokens", add(3, -1)),
    "times-in-order": lambda f: change_column(f, REQUESTS, "first_scheduled_ps", add(5, 10**14)),
    "patience": lambda f: change_column(f, REQUESTS, "status", put(3, "aborted")),
    "tokens-at-step-ends": lambda f: change_column(f, REQUESTS, "first_token_ps", add(5, 1)),
    "gaps-within-steps": lambda f: change_run(f, close_a_gap),
    "clock-never-back": lambda f: change_column(f, STEPS, "start_ps", add(9, -5)),
    "blocks-within-limits": lambda f: change_column(f, STEPS, "free_blocks", put(2, 600)),
    "batch-within-limits": lambda f: change_column(f, STEPS, "running", put(2, 5000)),
    "queue-counts": lambda f: change_column(f, STEPS, "waiting", add(4, 1)),
    "littles-law": lambda f: change_column(f, STEPS, "waiting", add(slice(None), 500)),
    "digest": lambda f: change_run(f, other_seed),
    "columns-agree": lambda f: change_column(f, REQUESTS, "ttft_s", add(2, 0.5)),
    "metrics-recomputed": lambda f: change_run(f, better_ttft),
}


def test_every_law_has_a_corruption() -> None:
    assert set(CORRUPTIONS) == set(ALL_LAWS)


@pytest.mark.parametrize("law", CORRUPTIONS)
def test_a_corrupted_folder_is_caught_by_the_name_of_the_law(
    law: str, sound: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sound, tmp_path / "run")
    CORRUPTIONS[law](folder)
    broken = {one.law: str(one) for one in check_folder(folder)}
    assert law in broken
    assert len(broken[law]) < 300 and broken[law].isprintable()
    assert any(char.isdigit() for char in broken[law]), "both sides are told"


@pytest.mark.parametrize("column", ["prefill_tokens", "hit_tokens", "decode_seqs", "finished"])
def test_a_token_or_request_more_in_one_step_is_caught(
    column: str, roomy: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(roomy, tmp_path / "run")
    change_column(folder, STEPS, column, add(12, 1))
    assert {one.law for one in check_folder(folder)} & {"tokens-conserved", "requests-conserved"}


def test_swapped_requests_are_caught(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "run")

    def swap(values: Any) -> None:
        longest, shortest = int(np.argmax(values)), int(np.argmin(values))
        values[[longest, shortest]] = values[[shortest, longest]]

    change_column(folder, REQUESTS, "output_tokens", swap)
    assert "tokens-conserved" in {one.law for one in check_folder(folder)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: run["facts"]["resolved"].pop("deployment"), "facts.resolved"),
        (lambda run: run.update(bench=[1]), "bench"),
        (lambda run: run.update(end_ps="soon"), "run --out"),
        (lambda run: run["facts"].update(block_size=0), "run --out"),
    ],
)
def test_a_run_file_that_nobody_wrote_is_refused(
    change: Callable[[dict[str, Any]], None], told: str, sound: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sound, tmp_path / "run")
    change_run(folder, change)
    with pytest.raises(InputError, match=told):
        check_folder(folder)
