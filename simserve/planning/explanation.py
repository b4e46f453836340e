"""Why a latency is what it is: where the time goes, what would change it, what it depends on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace

from simserve.errors import InputError
from simserve.inputs.prices import Offer, load_prices
from simserve.inputs.scenario import Scenario
from simserve.planning.cost_question import CostQuestion, OffersFor
from simserve.planning.counterfactuals import counterfactuals, ranked
from simserve.planning.other_hardware import as_it_is, without_host_time
from simserve.planning.replications import is_random
from simserve.planning.run_scenario import run
from simserve.planning.sensitivity import Swing, changes_of, inputs, swings
from simserve.planning.what_if import Effect, Question, effects, latency_s, nothing_changed
from simserve.planning.who_is_slow import Trait, traits
from simserve.results.result import Result
from simserve.results.samples import MS_PER_S, three_digits
from simserve.results.waterfall import QueueRules, Waterfalls, waterfalls
from simserve.results.waterfall_bands import Band, bands, of_request, requests_of
from simserve.traffic.generate import generate

REPLICATIONS = 4
"""How many runs a change is seen in unless told otherwise: enough to tell it from chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that is said about one percentile of one latency.

    ``value_s`` and ``median_s`` are of the run itself. ``base`` is None if no change was tried.
    ``offer`` is whose price the dollars are, None if there is none (``no_price`` says why).
    """

    result: Result
    question: Question
    value_s: float
    median_s: float
    bands: tuple[Band, ...]
    request: Band | None
    traits: tuple[Trait, ...] = ()  # of the requests in the ``asked_band``
    base: Effect | None = None
    counterfactuals: tuple[Effect, ...] = ()
    swings: tuple[Swing, ...] = ()
    offer: Offer | None = None
    no_price: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def asked_band(self) -> Band:
        """The band around the percentile that was asked for."""
        q = self.question.percentile
        around = [one for one in self.bands if one.low is not None and one.high is not None]
        return min(around, key=lambda one: _distance(one, q))


def _distance(band: Band, percentile: float) -> tuple[float, float]:
    low, high = band.low or 0.0, band.high or 0.0
    outside = 0.0 if low <= percentile <= high else 1.0
    return outside, high - low


def explain(
    scenario: Scenario,
    question: Question,
    *,
    result: Result | None = None,
    request: str | None = None,
    changes: bool = True,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Explain a percentile of a latency; ``result`` is a saved run of ``scenario``, if any.

    Without ``changes`` nothing else is simulated. A workload in which the seed decides nothing is
    run once whatever the question says.

    Raises:
        InputError: if no request has the metric, or there is no such request.
    """
    notes = []
    fresh = run(scenario) if result is None or changes else result
    shown = fresh if result is None else result
    found = waterfalls_of(shown, scenario)
    shares = bands(found, question.metric, question.percentile)
    value_s = latency_s(shown.metrics, question.metric, question.percentile)
    median_s = latency_s(shown.metrics, question.metric, 50)
    if value_s is None or median_s is None:
        raise InputError("--metric", None, question.metric, "one that some finished request has")
    remark = shown.facts.remark()
    if remark is not None:
        notes.append(remark)
    now_s = latency_s(fresh.metrics, question.metric, question.percentile)
    if now_s is not None and now_s != value_s:
        notes.append(
            f"the saved run has {three_digits(value_s * MS_PER_S)} ms, the same scenario now "
            f"{three_digits(now_s * MS_PER_S)} ms: changes are compared with now"
        )
    said = Explanation(
        result=shown,
        question=question,
        value_s=value_s,
        median_s=median_s,
        bands=tuple(shares),
        request=None
        if request is None
        else of_request(found, shown.record.requests, request, question.metric),
        notes=tuple(notes),
    )
    around = said.asked_band
    who = requests_of(found, question.metric, around)
    seen = traits(shown.record, who, around.latency_s, question.metric)
    said = replace(said, traits=seen)
    return _with_changes(said, scenario, workers, on_progress) if changes else said


def waterfalls_of(result: Result, scenario: Scenario) -> Waterfalls:
    """Return the waterfalls of a run of ``scenario``."""
    deployment = scenario.deployment
    rules = QueueRules.of_resolved(result.facts.resolved["deployment"])
    return waterfalls(result.record, rules, as_it_is(deployment), without_host_time(deployment))


def _with_changes(
    said: Explanation,
    scenario: Scenario,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> Explanation:
    offer, no_price = _offer(scenario)
    usd = None if offer is None else offer.usd_per_gpu_hour
    question = replace(said.question, usd_per_gpu_hour=usd)
    if not is_random(scenario):
        question = replace(question, replications=1)
    requests = generate(scenario.workload, scenario.seed)
    without, moved = counterfactuals(scenario, requests), inputs(scenario, requests)
    base, found = effects(
        nothing_changed(scenario),
        [*without, *changes_of(moved)],
        question,
        workers=workers,
        on_progress=on_progress,
    )
    return replace(
        said,
        question=question,
        base=base,
        counterfactuals=tuple(ranked(found[: len(without)])),
        swings=tuple(swings(moved, found[len(without) :])),
        offer=offer,
        no_price=no_price,
    )


def _offer(scenario: Scenario) -> tuple[Offer | None, str | None]:
    """Return the usual offer for the deployment's GPUs, or why there is none."""
    deployment = scenario.deployment
    question = CostQuestion(today=dt.date.today())
    try:
        offer, _ = OffersFor(deployment, question, load_prices(None))(deployment.replicas)
    except InputError as error:
        return None, str(error)
    return offer, None
