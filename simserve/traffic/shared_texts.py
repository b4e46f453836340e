"""Which shared texts stand in front of a prompt: system prompts, tools, retrieved chunks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.inputs.workload import PrefixSpec, SegmentGroupSpec
from simserve.records.requests import IntArray
from simserve.traffic.lengths import draw_lengths
from simserve.traffic.limits import MOST_ENTRIES, MOST_REQUESTS, MOST_TOKENS, check_count
from simserve.traffic.segments import offsets_of
from simserve.traffic.streams import random_stream

# Stocks up to this size are drawn from by giving every text a random key, larger ones by
# drawing texts until enough differ: the first needs a number per text, the second has to
# draw often where a few texts are very popular.
_KEYED_TEXTS = 1024
# Random keys held at a time.
_KEYS_AT_A_TIME = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The shared texts before each prompt, in CSR form; ids are below ``texts``."""

    offsets: IntArray  # [prompts + 1]
    text: IntArray  # [entries]
    tokens: IntArray  # [entries]
    texts: int

    def tokens_per_prompt(self) -> IntArray:
        """Return the tokens of all texts before each prompt: ``int64[prompts]``."""
        sums = np.concatenate(([0], np.cumsum(self.tokens)))
        return np.asarray(sums[self.offsets[1:]] - sums[self.offsets[:-1]])


def prefix_heads(prefix: PrefixSpec, prompts: int, seed: int) -> Heads:
    """Return one of the prefixes, drawn uniformly, for every prompt."""
    check_count("prefix.count", prefix.count, MOST_REQUESTS)
    check_count("prefix.tokens", prefix.tokens, MOST_TOKENS)
    return Heads(
        offsets=np.arange(prompts + 1, dtype=np.int64),
        text=random_stream(seed, "prefixes").integers(0, prefix.count, prompts),
        tokens=np.full(prompts, prefix.tokens, dtype=np.int64),
        texts=prefix.count,
    )


def group_heads(groups: tuple[SegmentGroupSpec, ...], prompts: int, seed: int) -> Heads:
    """Return the texts of all groups, group by group, for every prompt.

    Every group has random streams of its own, found by its name.
    """
    texts: list[IntArray] = []  # of one group: [prompts, per_request], ids over all groups
    kept: list[npt.NDArray[np.bool_]] = []
    lengths: list[IntArray] = []
    first = 0
    check_count("segments", sum((g.per_request or 1) * prompts for g in groups), MOST_ENTRIES)
    for group in groups:
        which = f"segments.{group.name}"
        check_count(f"{which}.count", group.count, MOST_REQUESTS)
        sizes = random_stream(seed, f"{which}.tokens")
        lengths.append(draw_lengths(f"{which}.tokens", group.tokens, group.count, sizes))
        drawn = _drawn_texts(group, prompts, seed)
        texts.append(first + drawn)
        has = random_stream(seed, f"{which}.share").random(prompts) < (group.share_frac or 1.0)
        kept.append(np.repeat(has[:, None], drawn.shape[1], axis=1))
        first += group.count
    all_texts, all_kept = np.concatenate(texts, axis=1), np.concatenate(kept, axis=1)
    text = all_texts[all_kept]
    return Heads(
        offsets=offsets_of(all_kept.sum(axis=1)),
        text=text,
        tokens=np.concatenate(lengths)[text],
        texts=first,
    )


def _drawn_texts(group: SegmentGroupSpec, prompts: int, seed: int) -> IntArray:
    """Return the texts of every prompt, most popular 0: ``int64[prompts, per_request]``."""
    wanted, name = group.per_request or 1, f"segments.{group.name}"
    rng = random_stream(seed, name)
    logs = -(group.zipf or 0.0) * np.log(np.arange(1, group.count + 1))
    if wanted > 1 and group.count <= _KEYED_TEXTS:
        at_a_time = max(1, _KEYS_AT_A_TIME // group.count)
        sizes = [min(at_a_time, prompts - start) for start in range(0, prompts, at_a_time)]
        return np.concatenate([_by_keys(logs, size, wanted, rng) for size in sizes])
    shares = np.cumsum(np.exp(logs))
    places = np.searchsorted(shares, rng.random((prompts, wanted)) * shares[-1], side="right")
    drawn = np.asarray(np.minimum(places, group.count - 1), dtype=np.int64)
    for row in np.flatnonzero(_has_twice(drawn)):
        drawn[row] = _redrawn(logs, drawn[row], random_stream(seed, f"{name}.again.{row}"))
    return drawn


def _by_keys(
    logs: npt.NDArray[np.float64], rows: int, wanted: int, rng: np.random.Generator
) -> IntArray:
    """Return ``wanted`` texts in the order in which they are drawn one after another, by row.

    Independent exponential variables with the weights as their rates, sorted, are exactly such
    a draw (Efraimidis and Spirakis, 2006); in logarithms, so that no weight becomes 0.
    """
    with np.errstate(divide="ignore"):
        keys = np.log(rng.standard_exponential((rows, len(logs)))) - logs
    first = np.argpartition(keys, wanted - 1, axis=1)[:, :wanted]
    order = np.argsort(np.take_along_axis(keys, first, axis=1), axis=1)
    return np.asarray(np.take_along_axis(first, order, axis=1), dtype=np.int64)


def _has_twice(drawn: IntArray) -> npt.NDArray[np.bool_]:
    ordered = np.sort(drawn, axis=1)
    return np.asarray((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))


def _redrawn(logs: npt.NDArray[np.float64], drawn: IntArray, rng: np.random.Generator) -> IntArray:
    """Return a prompt's texts, each repeated one replaced by the next that would be drawn."""
    found = dict.fromkeys(drawn.tolist())
    enough = min(2 * len(drawn), len(logs))
    found.update(dict.fromkeys(_by_keys(logs, 1, enough, rng)[0].tolist()))
    return np.array(list(found)[: len(drawn)], dtype=np.int64)
