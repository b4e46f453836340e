"""A scheduler that ends the process it is made in, as the kernel does when memory runs out."""

from __future__ import annotations

import os
import signal

from simserve.policy.cohort import CohortScheduler


class Deadly(CohortScheduler):
    def __init__(self, *arguments: object, **keywords: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
