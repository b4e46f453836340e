"""The largest workload that the arrays downstream can hold."""

from __future__ import annotations

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S

# vLLM keeps token counts and positions of a batch as int32 (vllm/v1/worker/gpu_input_batch.py).
MOST_TOKENS = 2**31 - 1

# As arrays, so many requests take 2.4 GB before anything is simulated.
MOST_REQUESTS = 100_000_000

# Entries of all prompts' lists of segments: as arrays, so many take 4.8 GB.
MOST_ENTRIES = 200_000_000

# Half of what an int64 of picoseconds holds; the other half is left for the run itself.
LONGEST_SPAN_PS = 2**62
LONGEST_SPAN_DAYS = LONGEST_SPAN_PS // PS_PER_S // 86_400


def check_count(which: str, got: float | None, most: int) -> None:
    """Refuse a number of the workload, called ``which``, that is above ``most``."""
    if got is not None and got > most:
        raise InputError("workload", which, got, f"at most {most}")
