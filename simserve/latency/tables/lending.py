"""What measured attention heads say of others: which are nearest, and at which point.

Decodes: every pair of a sequence and a KV head is one piece of work, the same whichever way
the pairs come about. So 4 sequences of 8 KV heads are asked at 16 sequences of 2. Between the
heads of public decode tables (H200, B200, A100, L40S) this errs by 1.6-2.6 % in the median
where the utilisation at the same batch errs by 34-50 %. What may differ is the number of
queries that share a KV head, so heads of the same group size are nearest.

Chunks: the work goes by query heads; the utilisation at the same point is taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot, log2

from simserve.latency.tables.curve import octaves
from simserve.latency.tables.limits import AttentionLimit, Heads

DECODES = "attn_decode"
Points = Mapping[tuple[float, float], float]


def heads_apart(table: str, wanted: Heads, measured: Heads) -> float:
    """Return how unlike two kinds of heads are in ``table``, in powers of two."""
    if table != DECODES:
        return octaves(wanted.shape, measured.shape)
    group = (wanted.queries / wanted.keys) / (measured.queries / measured.keys)
    return hypot(log2(group), log2(wanted.keys / measured.keys))


def lent_points(
    table: str, points: Points, lent: AttentionLimit, limit: AttentionLimit
) -> dict[tuple[float, float], float]:
    """Return the seconds of ``limit``'s heads from ``points`` of ``lent``'s, by point.

    They have the same utilisation, at most 1. Points of decodes are (batch, context), others
    (new tokens, past).
    """
    if table != DECODES:
        return {
            point: limit.chunk_s(*point) / min(1.0, lent.chunk_s(*point) / seconds)
            for point, seconds in points.items()
        }
    share = lent.heads.keys / limit.heads.keys
    return {
        (batch * share, context): limit.decode_s(batch * share, context)
        / min(1.0, lent.decode_s(batch, context) / seconds)
        for (batch, context), seconds in points.items()
    }
