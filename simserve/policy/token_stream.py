"""What tokens a request's KV blocks hold, as segments instead of token lists.

Two blocks are equal iff the whole token sequences up to their ends are equal (that is what
a chained block hash says). With tokens named by (segment, position in segment), comparing
sequences is comparing short lists.
"""

from __future__ import annotations

from itertools import accumulate

ENDLESS = 1 << 60
"""Where the last segment ends: generated tokens go on in it, for an unknown length."""

BlockKey = tuple[int, ...]


class TokenStream:
    """The token sequence of one request: prompt segments, then what it generates.

    ``segments[i]`` covers tokens ``ends[i - 1]`` up to ``ends[i]``; the last never ends.
    ``private_output`` says that no other request repeats the generated tokens, ``private``
    that none repeats any token.
    """

    __slots__ = ("ends", "private", "private_output", "segments")

    def __init__(
        self, segments: list[int], ends: list[int], private_output: bool, private: bool = False
    ) -> None:
        self.segments = segments
        self.ends = ends
        self.private_output = private_output
        self.private = private

    @classmethod
    def unshared(cls, request: int) -> TokenStream:
        """Return a stream that shares nothing with any other request's."""
        return cls([-1 - request], [ENDLESS], True, True)

    @classmethod
    def of_segments(
        cls, segments: list[int], tokens: list[int], output_segment: int, private_output: bool
    ) -> TokenStream:
        """Return the stream of a prompt made of ``segments`` with the given lengths."""
        return cls([*segments, output_segment], [*accumulate(tokens), ENDLESS], private_output)

    def segment_at(self, token: int, hint: int = 0) -> int:
        """Return the index of the segment that holds ``token``, searching from ``hint``."""
        ends = self.ends
        while ends[hint] <= token:
            hint += 1
        return hint

    def block_key(self, token: int, at: int, block_size: int) -> BlockKey:
        """Return the content of the block that starts at ``token``, in segment index ``at``.

        Keys of equal blocks are equal, given equal tokens before them.
        """
        segments, ends = self.segments, self.ends
        if not at and ends[0] - token >= block_size:
            return (segments[0], token)
        start = ends[at - 1] if at else 0
        if ends[at] - token >= block_size:
            return (segments[at], token - start)
        key = [segments[at], token - start]
        stop = token + block_size
        while ends[at] < stop:
            key.append(ends[at])
            at += 1
            key.append(segments[at])
        return tuple(key)

    def common_tokens(self, other: TokenStream, at: int, limit: int) -> int:
        """Return up to which token, at most ``limit``, both streams are equal.

        They must be equal up to and including the start of segment index ``at``.
        """
        if self is other:
            return limit
        segments, ends = self.segments, self.ends
        their_segments, their_ends = other.segments, other.ends
        while segments[at] == their_segments[at]:
            end = ends[at]
            if end != their_ends[at]:
                return min(end, their_ends[at], limit)
            if end >= limit:
                return limit
            at += 1
        return ends[at - 1] if at else 0
