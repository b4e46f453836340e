"""Laws of a run's requests: who comes leaves once, with the tokens and at the times told."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from simserve.records.clock import NEVER_PS
from simserve.records.run_record import ABORTED, FINISHED, REJECTED, UNFINISHED, RunRecord
from simserve.results.law_terms import Broken, Law, Limits, Served, first, total
from simserve.results.laws import decode_count_gap
from simserve.results.token_times import step_clock

_HALF_DONE = (UNFINISHED, ABORTED)


def _requests_conserved(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Who comes is admitted, and leaves once: requests against the sums over steps."""
    out = record.outcomes
    for one in replicas:
        finished = int((out.status[one.mine] == FINISHED).sum())
        admitted = int((out.first_scheduled_ps[one.mine] != NEVER_PS).sum())
        aborted = int((out.status[one.mine] == ABORTED).sum())
        preemptions = int(out.preemptions[one.mine].sum())
        yield from _equal(one, "finished", finished, "steps finish", total(one, "finished"))
        yield from _equal(one, "aborted", aborted, "steps abort", total(one, "aborted"))
        yield from _equal(one, "preemptions", preemptions, "steps preempt", total(one, "preempted"))
        resumed = total(one, "admitted") - admitted
        if not 0 <= resumed <= preemptions:
            yield (
                f"replica {one.number}: steps admit {total(one, 'admitted')}, but {admitted} "
                f"requests and {preemptions} preemptions"
            )
    rejected = out.status == REJECTED
    if (out.generated_tokens[rejected] != 0).any():
        yield f"request {first(rejected & (out.generated_tokens != 0))} rejected with tokens"


def _tokens_conserved(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Tokens of requests against tokens of steps, prompts and outputs."""
    out, requests = record.outcomes, record.requests
    finished = out.status == FINISHED
    room = np.maximum(limits.max_model_len - requests.prompt_tokens, 0)
    asked = np.minimum(requests.output_tokens, room)
    wrong = finished & (out.generated_tokens != asked)
    if wrong.any():
        at = first(wrong)
        yield f"request {at}: {out.generated_tokens[at]} tokens generated, {asked[at]} asked for"
    skipped = np.zeros(len(requests), np.int64)
    np.add.at(skipped, record.gaps.request, record.gaps.step - record.gaps.previous_step - 1)
    spanned = out.last_token_step - out.first_token_step + 1 - skipped
    wrong = finished & (out.generated_tokens != spanned)
    if wrong.any():
        at = first(wrong)
        yield f"request {at}: {out.generated_tokens[at]} tokens, in {spanned[at]} steps"
    if not np.isin(out.status, _HALF_DONE).any():
        difference = decode_count_gap(record)
        if difference.any():
            at = first(difference != 0)
            yield f"step {at} of all: {difference[at]:+d} decoding sequences than requests imply"
    yield from _prompts_conserved(record, replicas)


def _prompts_conserved(record: RunRecord, replicas: list[Served]) -> Broken:
    """Every prompt token is computed or found in the cache; only preemption repeats that."""
    out, prompts = record.outcomes, record.requests.prompt_tokens
    if (out.cached_tokens < 0).any() or (out.cached_tokens > prompts).any():
        at = first((out.cached_tokens < 0) | (out.cached_tokens > prompts))
        yield f"request {at}: {out.cached_tokens[at]} tokens cached of {prompts[at]}"
    for one in replicas:
        if np.isin(out.status[one.mine], _HALF_DONE).any():
            continue
        needed = int((prompts - out.cached_tokens)[one.mine].sum())
        hits = int(out.cached_tokens[one.mine].sum())
        computed, found = total(one, "prefill_tokens"), total(one, "hit_tokens")
        where = f"replica {one.number}: prompt tokens"
        if total(one, "preempted"):  # then what others have computed since may be found instead
            if computed + found < needed + hits:
                yield f"{where}: {computed + found} by steps, {needed + hits} by requests"
            continue
        if computed != needed:
            yield f"{where} computed: {computed} by steps, {needed} by requests"
        if found != hits:
            yield f"{where} cached: {found} by steps, {hits} by requests"
    for one in replicas:
        tokens = one.steps["decode_seqs"] + one.steps["prefill_tokens"]
        if (one.steps["tokens"] != tokens).any():
            yield f"replica {one.number}: tokens of a step are not decode_seqs + prefill_tokens"


def _times_in_order(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Arrival, first scheduled, first token, finish, end of the run."""
    out, arrival_ps = record.outcomes, record.requests.arrival_ps
    if (arrival_ps < 0).any() or (np.diff(arrival_ps) < 0).any():
        yield "arrivals are not in order"
    story = [("arrival", arrival_ps), ("first scheduled", out.first_scheduled_ps)]
    story += [("first token", out.first_token_ps), ("finish", out.finish_ps)]
    for (before, early_ps), (after, late_ps) in pairwise(story):
        wrong = (late_ps != NEVER_PS) & ((early_ps == NEVER_PS) | (early_ps > late_ps))
        if wrong.any():
            at = first(wrong)
            yield f"request {at}: {after} at {late_ps[at]} ps, {before} at {early_ps[at]} ps"
    if ((out.status == FINISHED) != (out.finish_ps != NEVER_PS)).any():
        at = first((out.status == FINISHED) != (out.finish_ps != NEVER_PS))
        yield f"request {at}: finished without a finish, or the other way round"
    if out.finish_ps.max(initial=0) > record.end_ps:
        yield f"a request finishes at {out.finish_ps.max()} ps, the run ends at {record.end_ps} ps"


def _patience(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Who gives up has the right to, and nobody is answered after that."""
    out, requests = record.outcomes, record.requests
    aborted = out.status == ABORTED
    if requests.give_up_ps is None:
        if aborted.any():
            yield f"request {first(aborted)}: aborted, and no client gives up"
        return
    patient = requests.give_up_ps == NEVER_PS
    if (aborted & patient).any():
        yield f"request {first(aborted & patient)}: aborted, and its client does not give up"
    deadline_ps = requests.arrival_ps + np.where(patient, 0, requests.give_up_ps)
    late = ~patient & (out.status == FINISHED) & (out.finish_ps >= deadline_ps)
    if late.any():
        at = first(late)
        yield (
            f"request {at}: answered at {out.finish_ps[at]} ps, its client gives up at "
            f"{deadline_ps[at]} ps"
        )


def _tokens_at_step_ends(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """A token appears when its step ends: for the first and the last of every request."""
    out, clock = record.outcomes, step_clock(record)
    for which, step, time_ps, there in (
        ("first token", out.first_token_step, out.first_token_ps, out.first_token_ps != NEVER_PS),
        ("last token", out.last_token_step, out.finish_ps, out.status == FINISHED),
    ):
        asked = np.flatnonzero(there)
        if not len(asked):
            continue
        end_ps = clock.end_ps[clock.offset[out.replica[asked]] + step[asked]]
        wrong = end_ps != time_ps[asked]
        if wrong.any():
            at = int(asked[first(wrong)])
            told = end_ps[first(wrong)]
            yield f"request {at}: {which} at {time_ps[at]} ps, its step ends at {told} ps"


def _gaps_within_steps(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """A gap lies between a request's first and last token, skips a step, and overlaps none."""
    out, gaps = record.outcomes, record.gaps
    order = np.lexsort((gaps.previous_step, gaps.request))
    request = gaps.request[order]
    before, after = gaps.previous_step[order], gaps.step[order]
    wrong = (after - before < 2) | (before < out.first_token_step[request])
    wrong |= (out.status[request] == FINISHED) & (after > out.last_token_step[request])
    same = np.append(False, request[1:] == request[:-1])
    wrong |= same & (before < np.append(0, after[:-1]))
    if wrong.any():
        at = first(wrong)
        begin, end = out.first_token_step[request[at]], out.last_token_step[request[at]]
        yield (
            f"request {request[at]}: a gap from step {before[at]} to {after[at]}, "
            f"its tokens from step {begin} to {end}"
        )


def _equal(one: Served, left: str, a: int, right: str, b: int) -> Broken:
    if a != b:
        yield f"replica {one.number}: {a} {left}, {right} {b}"


REQUEST_LAWS: dict[str, Law] = {
    "requests-conserved": _requests_conserved,
    "tokens-conserved": _tokens_conserved,
    "times-in-order": _times_in_order,
    "patience": _patience,
    "tokens-at-step-ends": _tokens_at_step_ends,
    "gaps-within-steps": _gaps_within_steps,
}
"""These laws by name, in the order in which they are told."""
