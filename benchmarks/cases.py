"""What is timed: the scenarios, as the dictionaries that a YAML file would hold, and their bars.

A bar is a ratio within one run of ``python -m benchmarks``, a share, or a number of CPU seconds
on a machine on which a bare SimPy timeout takes about 0.65 µs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRACE = Path(__file__).resolve().parent.parent.parent / "shared/traces/azure_llm_2023_conv.csv.gz"
"""The Azure LLM inference trace 2023, conversation part; not in this repository."""

PROMPT_TOKENS, OUTPUT_TOKENS = 512, 128
PREFIX_TOKENS = 256  # of the prompt, where prompts share something

PRESSURE_BLOCKS = 1_200
"""Found by trial: about one request in five is preempted; with 1,600 blocks one in a hundred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A law that one figure of a row must keep: ``at_most`` or ``at_least``, not both."""

    figure: str
    at_most: float | None = None
    at_least: float | None = None

    def kept(self, value: float) -> bool:
        """Return whether ``value`` keeps the law."""
        low, high = self.at_least, self.at_most
        return (low is None or value >= low) and (high is None or value <= high)

    def __str__(self) -> str:
        sign, limit = ("≤", self.at_most) if self.at_most is not None else ("≥", self.at_least)
        return f"{self.figure} {sign} {limit:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    name: str
    title: str
    scenario: dict[str, Any]
    compared_with: str | None = None  # the case whose CPU time per request is the unit
    bars: tuple[Bar, ...] = ()
    needs: Path | None = None  # a file without which the case is left out


def poisson(num_requests: int, rate_per_s: float) -> dict[str, Any]:
    """Return a workload of fixed lengths and Poisson arrivals."""
    return {
        "arrivals": {"process": "poisson", "rate_per_s": rate_per_s},
        "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": OUTPUT_TOKENS,
        "num_requests": num_requests,
    }


def scenario(workload: dict[str, Any], **settings: object) -> dict[str, Any]:
    """Return a scenario: ``workload`` on one GPU, prefix caching on."""
    deployment = {
        "model": "llama-3.1-8b",
        "gpu": "h100-sxm",
        "enable_prefix_caching": True,
        **settings,
    }
    return {"workload": workload, "deployment": deployment, "seed": 0}


# A step may cost four bare timeouts: the engine's budget for a step (docs/architecture.md).
STEP_BUDGET = Bar(figure="timeouts_ratio", at_most=4.0)


def cpu_s(at_most: float) -> Bar:
    """Return a bar in CPU seconds; see the module for the machine."""
    return Bar(figure="cpu_s", at_most=at_most)


CASES = (
    Case(
        name="light",
        title="100,000 Poisson, 12/s",
        scenario=scenario(poisson(100_000, 12.0)),
        bars=(cpu_s(3.0), STEP_BUDGET),
    ),
    Case(
        name="heavy",
        title="100,000 Poisson, 40/s",
        scenario=scenario(poisson(100_000, 40.0)),
        bars=(cpu_s(3.0), STEP_BUDGET),
    ),
    Case(
        name="million",
        title="1,000,000 Poisson, 40/s",
        scenario=scenario(poisson(1_000_000, 40.0)),
        compared_with="heavy",
        bars=(
            Bar(figure="per_request_ratio", at_most=1.2),
            Bar(figure="peak_rss_mib", at_most=1500.0),
        ),
    ),
    Case(
        name="pressure",
        title="20,000 over 20 prefixes, few blocks",
        scenario=scenario(
            poisson(20_000, 40.0)
            | {
                "prompt_tokens": PROMPT_TOKENS - PREFIX_TOKENS,
                "prefix": {"count": 20, "tokens": PREFIX_TOKENS},
            },
            num_gpu_blocks=PRESSURE_BLOCKS,
            max_model_len=PROMPT_TOKENS + OUTPUT_TOKENS,
        ),
        bars=(cpu_s(1.0), Bar(figure="preempted_frac", at_least=0.05)),
    ),
    Case(
        name="azure",
        title="Azure 2023 conversation trace",
        scenario=scenario({"trace": {"file": str(TRACE)}}),
        bars=(cpu_s(1.5),),
        needs=TRACE,
    ),
)
