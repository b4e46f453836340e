"""One seed, many random streams, each found by its name.

A stream depends on the seed and on its own name only. So a new one never changes what the
others draw: the same requests arrive whether or not their prompts share prefixes.
"""

from __future__ import annotations

import zlib

import numpy as np

from simserve.errors import InputError


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator called ``name`` of a run with ``seed``.

    Raises:
        InputError: if ``seed`` is negative.
    """
    if seed < 0:
        raise InputError("seed", None, seed, "a whole number, 0 or more")
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode())])
    return np.random.Generator(np.random.PCG64(words))
