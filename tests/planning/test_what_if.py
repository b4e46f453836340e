"""Counterfactuals and sensitivity: nothing changed gains nothing, and each changes one thing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import simserve
from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.scenario import Scenario, scenario_from_dict
from simserve.latency.tables.table_model import TableModel
from simserve.planning.changed_deployment import scenario_of_resolved, with_settings
from simserve.planning.counterfactuals import (
    counterfactuals,
    ranked,
    with_endless_kv,
)
from simserve.planning.explanation import waterfalls_of
from simserve.planning.other_hardware import as_it_is, twice_the_flops, without_host_time
from simserve.planning.perfect_cache import (
    with_perfect_cache,
    with_perfect_hits,
    with_scaled_hits,
)
from simserve.planning.scaled_requests import with_outputs, with_prompts
from simserve.planning.sensitivity import changes_of, inputs, swings
from simserve.planning.what_if import Change, Effect, Question, effects, nothing_changed
from simserve.records.step import PrefillChunk, StepShape
from simserve.traffic.generate import generate
from simserve.traffic.segments import reusable_tokens, shared_prefix_tokens
from tests.latency.tables.profiles import HOST, LLAMA_8B, tables_of, write_profile

P99 = Question(metric="ttft", percentile=99, usd_per_gpu_hour=2.0)
TIGHT = ["num_gpu_blocks=190", "max_model_len=3000"]


def load(small: Path, *settings: str) -> Scenario:
    return simserve.load_scenario(small, settings=settings)


def by_name(scenario: Scenario, question: Question = P99) -> tuple[Effect, dict[str, Effect]]:
    changes = counterfactuals(scenario, generate(scenario.workload, scenario.seed))
    base, found = effects(nothing_changed(scenario), changes, question)
    return base, {one.name: one for one in found}


@pytest.mark.parametrize("metric", ["ttft", "tpot", "e2el"])
def test_nothing_changed_gives_exactly_nothing(small: Path, metric: str) -> None:
    scenario = load(small, "workload.arrivals.rate_per_s=60", *TIGHT)
    question = replace(P99, metric=metric, replications=3)
    again = replace(nothing_changed(replace(scenario)), name="again")  # a run of its own
    base, (found,) = effects(nothing_changed(scenario), [again], question)
    assert again.run != nothing_changed(scenario).run
    for one in (base, found):
        assert one.change_s is not None
        assert (one.change_s.value, one.change_s.low, one.change_s.high) == (0.0, 0.0, 0.0)
        assert one.usd_change == 0.0 and one.notes == ()
    assert found.value_s == base.value_s


def test_what_never_ran_out_gains_nothing_when_it_is_endless(small: Path) -> None:
    _, found = by_name(load(small))
    assert found["infinite KV"].gain_s == 0.0


def test_endless_kv_ends_the_queue_for_blocks(small: Path) -> None:
    scenario = load(small, "workload.arrivals.rate_per_s=80", *TIGHT)
    requests = generate(scenario.workload, scenario.seed)
    deployment = with_endless_kv(scenario.deployment, requests)
    waiting = []
    for one in (scenario.deployment, deployment):
        record = simulate(requests, one, as_it_is(one))
        waiting.append(int(record.steps[0].waiting.max()))
    assert waiting[0] > 5 > waiting[1]
    _, found = by_name(scenario)
    assert found["infinite KV"].gain_s > 0
    assert ranked(list(found.values()))[0].name == "infinite KV"


def test_requests_that_never_meet_do_not_interfere(small: Path) -> None:
    scenario = load(small, "workload.arrivals={process: constant, rate_per_s: 0.1}")
    base, found = by_name(scenario)
    assert found["no interference"].gain_s == pytest.approx(0.0, abs=1e-12)
    assert base.value_s == found["no interference"].value_s
    long_prompts = load(
        small,
        "workload.arrivals={process: constant, rate_per_s: 0.1}",
        "workload.prompt_tokens=6000",
        "max_num_batched_tokens=2048",
        "max_num_seqs=64",
    )
    _, found = by_name(long_prompts)
    assert found["no interference"].gain_s == pytest.approx(0.0, abs=1e-12)


def test_every_counterfactual_helps_where_it_hurts(small: Path) -> None:
    scenario = load(small, "workload.arrivals.rate_per_s=80")
    _, found = by_name(scenario, replace(P99, metric="e2el", percentile=50))
    for name in ("no host time", "2x bandwidth", "2x FLOPs", "no interference"):
        assert found[name].gain_s > 0, name
    assert found["perfect prefix cache"].reason == "no prompt repeats another"
    gains = [one.gain_s for one in ranked(list(found.values()))]
    assert gains == sorted(gains, reverse=True)


def test_host_time_is_all_that_goes_with_the_host(small: Path) -> None:
    deployment = load(small).deployment
    shape = StepShape(7, 900, (PrefillChunk(100, 0),))
    share = {name: one.value for name, one in deployment.gpu.efficiency.items()}
    host_s = share["host_step_s"] + 8 * share["host_per_seq_s"]
    less = as_it_is(deployment).step_s(shape) - without_host_time(deployment).step_s(shape)
    assert less == pytest.approx(host_s, rel=1e-9)
    large, small_step = StepShape(0, 0, (PrefillChunk(8000, 0),)), StepShape(1, 100)
    plain, quick = as_it_is(deployment), twice_the_flops(deployment)
    assert quick.step_s(large) < 0.6 * plain.step_s(large)
    assert quick.step_s(small_step) == plain.step_s(small_step)  # memory decides


def agents(requests: int) -> Scenario:
    """Return conversations whose turns come in the order of the table."""
    settings = [f"workload.num_requests={requests}", "workload.sessions.wait_for_answer=false"]
    return simserve.load_scenario("agents", settings=settings)


def test_a_perfect_cache_finds_all_that_an_earlier_prompt_had() -> None:
    scenario = agents(60)
    requests = generate(scenario.workload, scenario.seed)
    size = scenario.deployment.engine.block_size
    split = with_perfect_hits(requests, scenario)
    assert not shared_prefix_tokens(split).any()  # nobody's work decides about anybody's hits
    deployment = with_perfect_cache(with_endless_kv(scenario.deployment, requests))
    record = simulate(split, deployment, as_it_is(deployment))
    assert (record.outcomes.cached_tokens == reusable_tokens(requests, size)).all()


@pytest.mark.parametrize("factor", [0.0, 0.9, 1.0, 1.1])
def test_scaled_hits_are_those_of_the_run_times_the_factor(factor: float) -> None:
    scenario = agents(60)
    requests, own = generate(scenario.workload, scenario.seed), scenario.deployment
    size = own.engine.block_size
    hits = simulate(requests, own, as_it_is(own)).outcomes.cached_tokens
    scaled = with_scaled_hits(requests, scenario, deployment=own, factor=factor)
    deployment = with_perfect_cache(with_endless_kv(own, requests))
    found = simulate(scaled, deployment, as_it_is(deployment)).outcomes.cached_tokens
    most = (requests.prompt_tokens - 1) // size * size
    assert (found == np.minimum(np.rint(hits * factor / size) * size, most)).all()


def test_scaled_texts_are_still_shared() -> None:
    scenario = agents(200)
    requests = generate(scenario.workload, scenario.seed)
    before = shared_prefix_tokens(requests)
    prompts = with_prompts(requests, scenario, factor=1.1)
    outputs = with_outputs(requests, scenario, factor=1.1)
    for changed in (prompts, outputs):
        table = changed.segments
        assert table is not None
        sums = np.add.reduceat(table.tokens, table.offsets[:-1])
        assert (changed.prompt_tokens == sums).all()
        assert shared_prefix_tokens(changed).sum() >= before.sum()
    assert (prompts.output_tokens == requests.output_tokens).all()
    assert outputs.output_tokens.sum() == pytest.approx(
        1.1 * requests.output_tokens.sum(), rel=0.01
    )


def test_scaling_by_one_changes_nothing(small: Path) -> None:
    for scenario in (load(small), simserve.load_scenario("rag")):
        requests = generate(scenario.workload, scenario.seed)
        for edit in (with_prompts, with_outputs):
            same = edit(requests, scenario, factor=1.0)
            assert (same.prompt_tokens == requests.prompt_tokens).all()
            assert (same.output_tokens == requests.output_tokens).all()


def test_inputs_move_what_they_are_called(small: Path) -> None:
    scenario = load(small)
    found = {one.name: one for one in inputs(scenario, generate(scenario.workload, 3))}
    faster = found["arrival rate"].more.scenario
    assert faster is not None and faster.workload.arrivals is not None
    assert faster.workload.arrivals.rate_per_s == pytest.approx(22)
    doubled = found["tp"].more.scenario
    assert doubled is not None and doubled.deployment.tp == 2
    assert doubled.deployment.kv.num_blocks > 2 * scenario.deployment.kv.num_blocks
    assert found["tp"].less.reason == "one GPU is the least"
    chunk = found["max_num_batched_tokens"].less.scenario
    assert chunk is not None
    asked = scenario.deployment.engine.max_num_batched_tokens
    assert chunk.deployment.engine.max_num_batched_tokens == round(asked * 0.9)
    assert found["prefix hit rate"].more.reason == "no prompt repeats another"


@pytest.mark.parametrize(
    ("arrivals", "reason"),
    [
        ("{process: all-at-once}", "all requests come at once"),
        ("{process: closed-loop, users: 4}", "a tenth of 4 users is nobody"),
    ],
)
def test_a_load_that_cannot_be_moved_says_why(small: Path, arrivals: str, reason: str) -> None:
    scenario = load(small, f"workload.arrivals={arrivals}")
    first = inputs(scenario, generate(scenario.workload, 3))[0]
    assert first.less.reason == first.more.reason == reason


def test_a_dearer_gpu_is_dearer_by_as_much_and_nothing_else(small: Path) -> None:
    scenario = load(small)
    moved = inputs(scenario, generate(scenario.workload, 3))
    base, found = effects(nothing_changed(scenario), changes_of(moved), P99)
    price = next(one for one in swings(moved, found) if one.name == "price of a GPU")
    assert base.usd_per_mtok is not None and price.more.usd_change is not None
    assert price.more.usd_change == pytest.approx(0.1 * base.usd_per_mtok)
    assert price.reach_s == 0.0
    reaches = [one.reach_s for one in swings(moved, found)]
    assert reaches == sorted(reaches, reverse=True)


def test_effects_do_not_depend_on_the_number_of_processes(small: Path) -> None:
    scenario = load(small)
    changes = counterfactuals(scenario, generate(scenario.workload, scenario.seed))
    one, two = (
        effects(nothing_changed(scenario), changes, P99, workers=workers) for workers in (1, 2)
    )
    assert one == two


def test_a_change_that_fails_in_its_run_says_why(small: Path) -> None:
    scenario = load(small)
    lost = replace(scenario, deployment=replace(scenario.deployment, latency="no/such/profile"))
    change = Change(name="lost", meaning="", scenario=lost)
    _, (found,) = effects(nothing_changed(scenario), [change], P99)
    assert found.value_s is None and found.reason is not None and "profile.yaml" in found.reason


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["max_num_seqs=64", "activation_peak_bytes=2GB"],
        ["num_gpu_blocks=20000", "max_model_len=16k"],
        [
            "kv_cache_memory_bytes=20GB",
            "max_model_len=16k",
            "quantization=awq",
            "kv_cache_dtype=fp8",
        ],
        ["scheduler=continuous", "replicas=2", "slo=ttft:500 tpot_p95:50"],
        ["workload.classes=[{name: a, weight: 1, slo: 'ttft:9'}, {name: b, weight: 2}]"],
    ],
)
def test_a_saved_scenario_is_made_again(small: Path, settings: list[str]) -> None:
    scenario = load(small, *settings)
    again = scenario_of_resolved(json.loads(json.dumps(scenario.resolved())))
    assert (again.workload, again.slo, again.seed) == (
        scenario.workload,
        scenario.slo,
        scenario.seed,
    )
    for name in ("engine", "model", "gpu", "tp", "replicas", "router", "scheduler", "latency"):
        assert getattr(again.deployment, name) == getattr(scenario.deployment, name), name
    same = with_settings(scenario.deployment)
    assert (same.engine, same.kv) == (scenario.deployment.engine, scenario.deployment.kv)


def test_a_saved_scenario_of_something_else_is_refused(small: Path) -> None:
    resolved = json.loads(json.dumps(load(small).resolved()))
    resolved["deployment"]["gpu"]["numbers"]["hbm_bytes_per_s"]["value"] *= 2
    with pytest.raises(InputError, match="hbm_bytes_per_s"):
        scenario_of_resolved(resolved)
    resolved["deployment"]["gpu"]["name"] = "h1000"
    with pytest.raises(InputError, match="can be made again"):
        scenario_of_resolved(resolved)
    for damaged in ({}, {"name": "x", "deployment": 3}, {**resolved, "slo": [7]}):
        with pytest.raises(InputError, match="what simserve resolves of a scenario"):
            scenario_of_resolved(damaged)


def test_a_measured_profile_keeps_the_gpus_time_and_loses_the_hosts(
    small: Path, tmp_path: Path
) -> None:
    profile = write_profile(tmp_path / "made-up", tables_of(LLAMA_8B, 1), HOST)
    scenario = load(small, f"latency={profile}", "workload.arrivals.rate_per_s=60")
    model, bare = (one(scenario.deployment) for one in (as_it_is, without_host_time))
    assert isinstance(model, TableModel) and isinstance(bare, TableModel)
    shapes = [
        StepShape(7, 900),
        StepShape(0, 0, (PrefillChunk(100, 0),)),
        StepShape(40, 9000, (PrefillChunk(300, 64), PrefillChunk(20, 0))),
    ]
    for shape in shapes:
        assert bare.step_s(shape) == pytest.approx(model.gpu_s(shape), rel=1e-9)
        assert model.step_s(shape) > bare.step_s(shape)
    result = simserve.run(scenario)
    found = waterfalls_of(result, scenario)
    out, who = result.record.outcomes, found.request
    whole_ps = found.until_first_ps + found.after_first_ps
    assert (whole_ps >= 0).all()
    taken_ps = out.finish_ps[who] - result.record.requests.arrival_ps[who]
    assert (whole_ps.sum(axis=1) == taken_ps).all()
    _, effects_of = by_name(scenario)
    assert effects_of["2x FLOPs"].reason == f"{profile} was measured, and not on such a part"
    assert effects_of["no host time"].gain_s > 0


def test_a_token_costs_what_an_hour_of_that_load_does_not_what_the_drain_does() -> None:
    deployment = {"model": "llama-3.1-8b", "gpu": "h100-sxm"}
    lengths = {"prompt_tokens": {"fixed": 200}, "output_tokens": {"fixed": 400}}
    costs = []
    for requests in (120, 1200):
        arrivals = {"process": "constant", "rate_per_s": 10}
        workload = {"arrivals": arrivals, "num_requests": requests, **lengths}
        scenario = scenario_from_dict({"workload": workload, "deployment": deployment})
        costs.append(effects(nothing_changed(scenario), [], P99)[0].usd_per_mtok)
    # Ten requests of 600 tokens a second at $2 an hour, however long the run and its drain.
    assert costs == pytest.approx([2e6 / (10 * 600 * 3600)] * 2)
