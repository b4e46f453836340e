"""Prompts that share prefixes: segment tables built, reordered, and what they could save."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simserve.records.requests import IntArray, RequestTable, SegmentTable

_Hashes = npt.NDArray[np.uint64]


def segments_of_blocks(
    prompt_tokens: IntArray, block_counts: IntArray, block_ids: IntArray, block_tokens: int
) -> SegmentTable | None:
    """Return the prompts as one segment per block, or None if no prompt names a block.

    ``block_ids`` holds the ids of all prompts, one after another, ``block_counts[i]`` of them
    for prompt ``i``. Every block has ``block_tokens`` tokens, but the last of a prompt covers
    what is left of it. A prompt with a count of 0 becomes one segment that nobody shares.
    """
    if not len(block_ids):
        return None
    entries = np.maximum(block_counts, 1)
    offsets = offsets_of(entries)
    unnamed = np.flatnonzero(block_counts == 0)
    segment = np.empty(offsets[-1], dtype=np.int64)
    tokens = np.full(offsets[-1], block_tokens, dtype=np.int64)
    named = np.ones(offsets[-1], dtype=np.bool_)
    named[offsets[unnamed]] = False
    segment[named] = block_ids
    segment[offsets[unnamed]] = block_ids.max() + 1 + np.arange(len(unnamed))
    tokens[offsets[1:] - 1] = prompt_tokens - (entries - 1) * block_tokens
    tokens[offsets[unnamed]] = prompt_tokens[unnamed]
    return SegmentTable(offsets=offsets, segment=segment, tokens=tokens)


def reordered(table: SegmentTable, order: npt.NDArray[np.intp]) -> SegmentTable:
    """Return the table with request ``order[i]`` at place ``i``."""
    counts = np.diff(table.offsets)[order]
    offsets = offsets_of(counts)
    step_in_request = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    entry = np.repeat(table.offsets[:-1][order], counts) + step_in_request
    return SegmentTable(offsets=offsets, segment=table.segment[entry], tokens=table.tokens[entry])


def shared_prefix_tokens(requests: RequestTable) -> IntArray:
    """Return how many leading tokens of each prompt an earlier request had: ``int64[requests]``.

    Earlier means before it in the table. An earlier request had its prompt and, where
    ``output_segment`` says that they can be repeated, the tokens that it generated. Timing
    plays no part: the earlier request counts even if it has not run by then.

    Lists of segments are compared by 64-bit sums of scrambled entries; that two different
    ones agree has a chance of about entries² / 2⁶⁵ (1e-9 for 200,000 entries).
    """
    if requests.segments is None or not len(requests):
        return np.zeros(len(requests), dtype=np.int64)
    table = _with_outputs(requests, requests.segments)
    first = table.offsets[:-1]
    counts = np.diff(table.offsets)
    place = np.arange(table.offsets[-1]) - np.repeat(first, counts)
    entry = _entry_hash(table.segment, table.tokens, place)
    before = np.cumsum(entry, dtype=np.uint64) - entry
    before -= np.repeat(before[first], counts)  # sums start anew with every request

    # An entry is matched whole if the list up to its end has been seen; such entries lead.
    prompt_entries = np.diff(requests.segments.offsets)
    in_prompt = place < np.repeat(prompt_entries, counts)
    whole = _seen_before(before + entry) & in_prompt
    matched = np.add.reduceat(np.where(whole, table.tokens, 0), first)
    # The first that is not can still agree with a longer or shorter piece of its segment.
    partial = first + np.add.reduceat(whole.astype(np.int64), first)
    open_ended = np.flatnonzero(partial < first + prompt_entries)
    same_piece = before + _entry_hash(table.segment, np.zeros_like(table.tokens), place)
    longest = _longest_before(same_piece, table.tokens)
    at = partial[open_ended]
    matched[open_ended] += np.minimum(longest[at], table.tokens[at])
    return matched


def infinite_cache_hit_frac(requests: RequestTable, block_tokens: int) -> float:
    """Return the share of prompt blocks that an earlier request already had.

    A prompt is cut into blocks of ``block_tokens`` from its start; what is left over counts
    as one block more. A block was had before if an earlier request (``shared_prefix_tokens``)
    agrees with the prompt up to the block's end. With 512 tokens this is the figure usually
    quoted for Mooncake traces (every id seen earlier in the file). It knows no capacity, no
    timing and no engine: for what vLLM could at best reuse, see ``reusable_tokens``.
    """
    shared, prompts = shared_prefix_tokens(requests), requests.prompt_tokens
    blocks = -(-prompts // block_tokens)
    hits = np.where(shared == prompts, blocks, shared // block_tokens)
    return float(hits.sum() / blocks.sum())


def reusable_tokens(requests: RequestTable, block_size: int) -> IntArray:
    """Return the prompt tokens that vLLM would find in an endless cache: ``int64[requests]``.

    Only full blocks of ``block_size`` are cached, and the last token of a prompt is always
    computed, so a prompt that is cached whole reuses one block less if it ends on a block
    boundary (vllm/v1/core/kv_cache_manager.py, ``get_computed_blocks``). The sum bounds the
    ``cached_tokens`` of a run of the same requests in the same order.
    """
    most = (requests.prompt_tokens - 1) // block_size
    return np.minimum(shared_prefix_tokens(requests) // block_size, most) * block_size


def block_ids(requests: RequestTable, block_tokens: int) -> tuple[IntArray, IntArray]:
    """Return the blocks of all prompts: how many each has, and their ids one after another.

    Two ids are equal iff the prompts agree up to the end of the block; the last block of a
    prompt covers the rest. If the segments are such blocks already, they keep their ids.
    Otherwise what two prompts share beyond the last whole block is lost, as it is in vLLM.
    """
    prompts, table = requests.prompt_tokens, requests.segments
    counts = -(-prompts // block_tokens)
    if table is None:
        return counts, np.arange(counts.sum())
    last = table.offsets[1:] - 1
    inner = np.ones(len(table.tokens), dtype=np.bool_)
    inner[last] = False
    if (table.tokens[inner] == block_tokens).all() and (table.tokens[last] <= block_tokens).all():
        return counts, table.segment
    first = offsets_of(counts)
    place = np.arange(first[-1]) - np.repeat(first[:-1], counts)
    ends = np.minimum((place + 1) * block_tokens, np.repeat(prompts, counts))
    ends += np.repeat(offsets_of(prompts)[:-1], counts)  # counted over all prompts
    entry_ends = np.cumsum(table.tokens)
    entry = np.searchsorted(entry_ends, ends)
    tokens = ends - (entry_ends[entry] - table.tokens[entry])
    entries = np.diff(table.offsets)
    entry_place = np.arange(len(entry_ends)) - np.repeat(table.offsets[:-1], entries)
    whole = _entry_hash(table.segment, table.tokens, entry_place)
    before = np.cumsum(whole, dtype=np.uint64) - whole
    before -= np.repeat(before[table.offsets[:-1]], entries)
    keys = before[entry] + _entry_hash(table.segment[entry], tokens, entry_place[entry])
    _, seen_first, number = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(seen_first), dtype=np.int64)
    rank[np.argsort(seen_first)] = np.arange(len(seen_first))
    return counts, rank[number]


def _with_outputs(requests: RequestTable, table: SegmentTable) -> SegmentTable:
    """Return the prompts' segments, each followed by the generated tokens if they repeat."""
    if requests.output_segment is None:
        return table
    ends = table.offsets[1:]
    return SegmentTable(
        offsets=table.offsets + np.arange(len(table.offsets)),
        segment=np.insert(table.segment, ends, requests.output_segment),
        tokens=np.insert(table.tokens, ends, requests.output_tokens),
    )


def _entry_hash(segment: IntArray, tokens: IntArray, place: IntArray) -> _Hashes:
    """Return a number for each (segment, tokens, place in the list), equal for equal ones."""
    hashes = _scrambled(segment.astype(np.uint64))
    return _scrambled(_scrambled(hashes + tokens.astype(np.uint64)) + place.astype(np.uint64))


def _scrambled(values: _Hashes) -> _Hashes:
    """Return the values with their bits mixed: splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _seen_before(keys: _Hashes) -> npt.NDArray[np.bool_]:
    """Return, for every key, whether it stands earlier in the array too."""
    order = np.argsort(keys, kind="stable")
    seen = np.empty(len(keys), dtype=np.bool_)
    seen[order] = np.concatenate(([False], keys[order][1:] == keys[order][:-1]))
    return seen


def _longest_before(keys: _Hashes, tokens: IntArray) -> IntArray:
    """Return, for every place, the most tokens at an earlier place of the same key, or 0."""
    order = np.argsort(keys, kind="stable")
    starts = np.concatenate(([True], keys[order][1:] != keys[order][:-1]))
    group = np.cumsum(starts)
    # One running maximum serves all groups if a later group always outweighs an earlier one.
    weight = int(tokens.max()) + 1
    running = np.maximum.accumulate(group * weight + tokens[order]) - group * weight
    longest = np.empty(len(keys), dtype=np.int64)
    longest[order] = np.where(starts, 0, np.concatenate(([0], running[:-1])))
    return longest


def offsets_of(counts: IntArray) -> IntArray:
    """Return where each of the lists begins that have these lengths, and where the last ends."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
