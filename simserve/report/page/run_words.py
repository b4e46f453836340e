"""A run in a few plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simserve.report.page.parts import count, ms, number, percent

_NOT_FINISHED = ("rejected", "timed_out", "cancelled", "unfinished")


def summary_words(summary: Mapping[str, Any]) -> list[str]:
    """Return two or three paragraphs: what was run, what came out, and how far to trust it."""
    return [_setting(summary), _outcome(summary), _trust(summary)]


def _setting(summary: Mapping[str, Any]) -> str:
    traffic, scenario = summary["traffic"], summary["scenario"]
    done = f"{traffic['completed']:,} of {count(traffic['requests'], 'request')} finished"
    left = [f"{traffic[one]:,} {one.replace('_', ' ')}" for one in _NOT_FINISHED if traffic[one]]
    said = f"{', '.join([done, *left])}, in {number(summary['throughput']['duration_s'])} s. "
    said += f"Together they had {number(traffic['prompt_tokens'])} prompt tokens and "
    said += f"{number(traffic['output_tokens'])} output tokens."
    if scenario["replicas"] > 1:
        said += f" {scenario['replicas']} replicas shared them ({scenario['router']})."
    return said


def _outcome(summary: Mapping[str, Any]) -> str:
    verdict, latency = summary["verdict"], summary["latency_ms"]
    reason = f"{verdict['name'].capitalize()}: {verdict['reason']}."
    if not verdict["operating_point"]:
        return f"{reason} So no percentile of this run is an operating point."
    words = [reason]
    ttft, tpot = latency.get("ttft"), latency.get("tpot")
    if ttft:
        words.append(
            f"Half of the requests had their first token within {ms(ttft['p50'])} ms of arriving, "
            f"and 99 % within {ms(ttft['p99'])} ms."
        )
    if tpot:
        words.append(
            f"After that, the median request got a token every {ms(tpot['p50'])} ms "
            f"({number(1000 / tpot['p50'])} tokens a second)."
            if tpot["p50"]
            else "After that, tokens came at once."
        )
    return " ".join(words)


def _trust(summary: Mapping[str, Any]) -> str:
    slo, cache = summary["slo"], summary["kv_cache"]
    words = []
    if slo is not None:
        words.append(f"The service-level objectives are {slo['reason']}.")
    mean, peak = percent(cache["mean_frac"]), percent(cache["peak_frac"])
    words.append(f"On average {mean} of the KV cache was held, at most {peak}.")
    words.append(_preemptions(cache))
    assumed = count(summary["scenario"]["assumed_numbers"], "assumed number")
    words.append(f"This is a simulation that rests on {assumed}, listed below.")
    if summary["scenario"]["remark"]:
        words.append(f"{summary['scenario']['remark']}.")
    return " ".join(words)


def _preemptions(cache: Mapping[str, Any]) -> str:
    if not cache["preemptions"]:
        return "Nobody was preempted."
    requests = count(cache["preempted_requests"], "request")
    return f"{requests} lost their blocks to others, {count(cache['preemptions'], 'time')} in all."
