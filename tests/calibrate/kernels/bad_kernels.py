"""Kernels that take their process along, hang, or are fine: for a checker in a worker."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import torch

from calibrate import check
from calibrate.check_apart import Checker
from calibrate.kernels import registry
from calibrate.kernels.registry import Entry
from calibrate.kernels.torch_cpu import TorchAttention
from calibrate.kernels.trials import attention_trials


class CrashesOnPrefill(TorchAttention):
    """Ends its process at the third case, as an illegal access in a library does."""

    def run(self, planned: Any, *tensors: torch.Tensor) -> None:
        """Abort, or attend."""
        if len(planned.batch.query_tokens) == 1 and planned.batch.query_tokens[0] > 1:
            os.abort()
        super().run(planned, *tensors)


class Hangs(TorchAttention):
    """Never comes back."""

    def run(self, planned: Any, *tensors: torch.Tensor) -> None:
        """Sleep."""
        del planned, tensors
        time.sleep(1000)


class Made(Entry[Any]):
    """An entry that makes a class of this file."""

    def __call__(self) -> Any:
        """Return a new kernel object."""
        return globals()[self.attribute]()


def open_checker(config: Mapping[str, Any]) -> Checker:
    """Return a checker of these kernels alone."""
    names = ("CrashesOnPrefill", "Hangs", "TorchAttention")
    table = {name: Made("", name, registry.ANY) for name in names}
    check.FAMILIES = {"attention": (table, attention_trials)}  # type: ignore[misc]
    return Checker(config["device"], config["seed"], config["names"])
