"""All-reduce among processes, one per GPU: NCCL, or gloo between CPU processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

TIMEOUT: Final = timedelta(seconds=60)  # a rank that waits longer has lost its peers


class AllReduce:
    """The sum of a tensor over all ranks, in place, by ``torch.distributed``."""

    def __init__(self, name: str) -> None:
        self.name = name  # 'nccl' or 'gloo': also torch's name for it

    def missing(self, ranks: int) -> str | None:
        """Say why so many ranks cannot meet on this machine; None if they can."""
        if ranks < 2:
            return f"an all-reduce needs at least two ranks, got {ranks}"
        if not dist.is_available():
            return "this torch was built without torch.distributed"
        if self.name == "gloo":
            return None if dist.is_gloo_available() else "this torch was built without gloo"
        if not dist.is_nccl_available():
            return "this torch was built without NCCL"
        gpus = torch.cuda.device_count()
        if gpus < ranks:
            return f"{ranks} ranks need as many GPUs, this machine has {gpus}"
        return None

    def device(self, rank: int) -> torch.device:
        """Return where a rank's tensors are."""
        return torch.device("cpu") if self.name == "gloo" else torch.device("cuda", rank)

    @contextmanager
    def joined(self, rank: int, ranks: int, meeting_file: Path) -> Iterator[None]:
        """Be one of the ranks, all of which name the same new file to meet at."""
        device = self.device(rank)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            self.name,
            init_method=meeting_file.absolute().as_uri(),
            rank=rank,
            world_size=ranks,
            timeout=TIMEOUT,
        )
        try:
            yield
        finally:
            dist.destroy_process_group()

    def run(self, tensor: torch.Tensor) -> None:
        """Launch: replace ``tensor`` by the sum over the ranks. NCCL's can be captured."""
        dist.all_reduce(tensor)


def on_all_ranks(
    reduce: AllReduce, ranks: int, meeting_file: Path, body: Callable[[int, AllReduce], None]
) -> None:
    """Run ``body(rank, reduce)`` in as many new processes, joined, and wait for all.

    ``body`` must be importable by name.

    Raises:
        RuntimeError: if the ranks cannot meet here, with the reason.
        torch.multiprocessing.ProcessRaisedException: what ``body`` raised.
    """
    reason = reduce.missing(ranks)
    if reason:
        raise RuntimeError(reason)
    arguments = (reduce, ranks, meeting_file, body)
    spawn(_rank, arguments, nprocs=ranks)


def _rank(
    rank: int,
    reduce: AllReduce,
    ranks: int,
    meeting_file: Path,
    body: Callable[[int, AllReduce], None],
) -> None:
    with reduce.joined(rank, ranks, meeting_file):
        body(rank, reduce)
