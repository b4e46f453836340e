"""What the same requests would cost at a provider's prices: request by request, cache included.

A provider's cache is not simulated: it is taken to find what the simulated one found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.inputs.prices import ApiPrice
from simserve.inputs.prices_file import LongPrompt, TokenPrices
from simserve.records.requests import IntArray
from simserve.records.run_record import RunRecord
from simserve.results.token_cost import TOKENS_PER_MTOK
from simserve.results.token_times import finished_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of each request: ``int64[requests]``; prompts include what is cached."""

    prompt_tokens: IntArray
    cached_tokens: IntArray
    output_tokens: IntArray

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def with_hits(self, share: float) -> Usage:
        """Return the same with ``share`` of every prompt found in the cache."""
        cached = np.floor(self.prompt_tokens * share).astype(np.int64)
        return Usage(
            prompt_tokens=self.prompt_tokens, cached_tokens=cached, output_tokens=self.output_tokens
        )


def usage_of(record: RunRecord) -> Usage:
    """Return what the requests of a run would be charged for: nothing if not answered."""
    done = finished_requests(record)
    return Usage(
        prompt_tokens=np.where(done, record.requests.prompt_tokens, 0),
        cached_tokens=np.where(done, record.outcomes.cached_tokens, 0),
        output_tokens=np.where(done, record.outcomes.generated_tokens, 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiBill:
    """US$ per request at one provider; ``low`` and ``high`` span its lists, ``batch`` is async."""

    price: ApiPrice
    usd_per_request: float
    parts: dict[str, float]  # input, cached_input, output; they sum to usd_per_request
    low_usd_per_request: float
    high_usd_per_request: float
    batch_usd_per_request: float | None
    long_prompts: int


def api_bill(usage: Usage, price: ApiPrice) -> ApiBill:
    """Return what a request of ``usage`` costs on average at ``price``."""
    parts = _parts(usage, price.prices, price.long_prompt)
    asked = [sum(parts.values())]
    if price.other_list is not None:
        asked.append(sum(_parts(usage, price.other_list, price.long_prompt).values()))
    long = price.long_prompt
    return ApiBill(
        price=price,
        usd_per_request=asked[0],
        parts=parts,
        low_usd_per_request=min(asked),
        high_usd_per_request=max(asked),
        batch_usd_per_request=None if price.batch is None else asked[0] * price.batch.value,
        long_prompts=int((usage.prompt_tokens > long.above_tokens).sum()) if long else 0,
    )


def _parts(usage: Usage, prices: TokenPrices, long: LongPrompt | None) -> dict[str, float]:
    """Return US$ per request by kind of token; a long prompt's whole request costs more."""
    is_long = np.zeros(len(usage), np.bool_)
    if long is not None:
        is_long = usage.prompt_tokens > long.above_tokens
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    input_factor, output_factor = 1.0, 1.0
    if long is not None:
        # No list states the cached price of long prompts: it rises as that of input does.
        input_factor = long.input / prices.input if prices.input else 1.0
        output_factor = long.output / prices.output if prices.output else 1.0
    on_input = np.where(is_long, input_factor, 1.0)
    on_output = np.where(is_long, output_factor, 1.0)
    scale = len(usage) * TOKENS_PER_MTOK
    fresh = usage.prompt_tokens - usage.cached_tokens
    return {
        "input": float((fresh * on_input).sum()) * prices.input / scale,
        "cached_input": float((usage.cached_tokens * on_input).sum()) * cached_price / scale,
        "output": float((usage.output_tokens * on_output).sum()) * prices.output / scale,
    }
