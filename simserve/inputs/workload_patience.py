"""Clients that do not wait for ever: how many cancel, and after how long."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from simserve.inputs.units import Seconds
from simserve.inputs.validation import StrictModel


class CancellationsSpec(StrictModel):
    """People who stop an answer that takes too long, whatever became of it so far.

    A share ``frac`` of the clients would cancel. How long each of them waits is exponential with
    mean ``mean_after_s``; who has the whole answer by then does not.
    """

    frac: Annotated[float, Field(gt=0, le=1)] = Field(
        description="a number above 0 and at most 1: the share of clients that would cancel"
    )
    mean_after_s: Seconds = Field(description="a duration above 0, in seconds")
