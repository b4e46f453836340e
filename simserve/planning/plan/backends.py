"""Where runs are computed: processes of this machine, or a Ray or Dask cluster that is there.

A backend takes runs and yields them as they finish; which run gives what does not depend on it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.planning.plan.outcomes import Outcome, outcome_of
from simserve.planning.processes import as_finished, check_workers

BACKEND_NAMES = ("local", "ray", "dask")
_KEPT = "what was finished is kept if --store is given, --resume goes on"


class Backend(Protocol):
    """Computes runs."""

    def outcomes(self, tasks: Sequence[Scenario]) -> Iterator[tuple[int, Outcome]]:
        """Yield (number of the task, its outcome) as tasks finish."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


class LocalBackend:
    """Processes of this machine."""

    def __init__(self, workers: int) -> None:
        check_workers(workers)
        self._workers = workers

    def outcomes(self, tasks: Sequence[Scenario]) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes as they finish."""
        if self._workers == 1 or len(tasks) < 2:
            yield from ((at, outcome_of(task)) for at, task in enumerate(tasks))
            return
        from joblib.externals.loky.process_executor import BrokenProcessPool

        try:
            yield from as_finished(outcome_of, tasks, self._workers)
        except BrokenProcessPool as error:
            raise _killed("--workers", self._workers, "fewer workers") from error

    def close(self) -> None:
        """Leave the processes to joblib, which ends idle ones."""


class RayBackend:
    """A Ray cluster; without an address, the one that ``RAY_ADDRESS`` or this machine has."""

    def __init__(self, address: str | None) -> None:
        _refuse_missing("ray")
        ray = self._ray = importlib.import_module("ray")
        self._is_mine = not ray.is_initialized()
        if self._is_mine:
            try:
                ray.init(address=address or "auto", log_to_driver=False, logging_level="error")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise _no_cluster("ray", address, error) from error
        self._run = ray.remote(max_retries=1)(outcome_of)

    def outcomes(self, tasks: Sequence[Scenario]) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes as they finish."""
        ray = self._ray
        number = {self._run.remote(task): at for at, task in enumerate(tasks)}
        waiting = list(number)
        try:
            while waiting:
                done, waiting = ray.wait(waiting, num_returns=1)
                for one in done:
                    yield number[one], ray.get(one)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except ray.exceptions.RayError as error:
            raise _killed("--backend", "ray", "a cluster whose workers stay") from error

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        if self._is_mine:
            self._ray.shutdown()


class DaskBackend:
    """A Dask cluster; without an address, that of ``DASK_SCHEDULER_ADDRESS``."""

    def __init__(self, address: str | None) -> None:
        _refuse_missing("distributed")
        distributed = self._distributed = importlib.import_module("distributed")
        where = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        if where is None:
            raise InputError("--cluster", None, None, "the scheduler's address, tcp://host:8786")
        try:
            self._client = distributed.Client(where, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise _no_cluster("dask", where, error) from error

    def outcomes(self, tasks: Sequence[Scenario]) -> Iterator[tuple[int, Outcome]]:
        """Yield outcomes as they finish."""
        futures = self._client.map(outcome_of, tasks, pure=False)
        number = {future.key: at for at, future in enumerate(futures)}
        try:
            for future in self._distributed.as_completed(futures, loop=self._client.loop):
                yield number[future.key], future.result()
        except self._distributed.KilledWorker as error:
            raise _killed("--backend", "dask", "a cluster whose workers stay") from error
        except (OSError, self._distributed.CancelledError) as error:
            raise _killed("--backend", "dask", "a cluster that stays") from error

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self._client.close()


def open_backend(name: str, *, workers: int, address: str | None) -> Backend:
    """Return the backend ``name``; ``workers`` are of the local one, ``address`` of clusters.

    Raises:
        InputError: if there is none of that name, its package is missing, or no cluster answers.
    """
    if name == "ray":
        return RayBackend(address)
    if name == "dask":
        return DaskBackend(address)
    if address is not None:
        raise InputError("--cluster", None, address, "only with --backend ray or dask")
    return LocalBackend(workers)


def _refuse_missing(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        extra = "dask" if package == "distributed" else package
        allowed = f"a Python with {package}: pip install 'simserve[{extra}]'"
        raise InputError("--backend", None, extra, allowed)


def _no_cluster(name: str, address: str | None, error: Exception) -> InputError:
    allowed = f"the address of a {name} cluster that is running ({type(error).__name__})"
    return InputError("--cluster", None, address or "no address", allowed)


def _killed(where: str, which: object, allowed: str) -> InputError:
    got = f"{which}, of which a worker was killed (perhaps for its memory)"
    return InputError(where, None, got, f"{allowed}; {_KEPT}")
