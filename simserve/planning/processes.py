"""Independent tasks on several processes, which end when the command does, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from simserve.errors import InputError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
# How long a worker may outlive a command that was killed.
_LOOK_EVERY_S = 0.5


def as_finished(
    function: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], workers: int
) -> Iterator[tuple[int, ResultT]]:
    """Yield (number of the task, its result) as tasks finish, on ``workers`` processes."""
    if workers == 1 or len(tasks) < 2:
        yield from ((at, function(task)) for at, task in enumerate(tasks))
        return
    from joblib import Parallel, delayed, parallel_config

    _let_loky_kill()
    # A worker is told whose it is: asked later, it may already be somebody else's.
    ready = {"initializer": _end_with_the_command, "initargs": (os.getpid(),)}
    with parallel_config("loky", n_jobs=workers, **ready):
        pool = Parallel(return_as="generator_unordered")
        with _interrupts_held():  # a worker that is still importing would tell where it was
            done = pool(delayed(_numbered)(function, at, task) for at, task in enumerate(tasks))
        yield from done


def in_order(
    function: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], workers: int
) -> list[ResultT]:
    """Return the results in the order of the tasks."""
    found = dict(as_finished(function, tasks, workers))
    return [found[at] for at in range(len(tasks))]


MOST_WORKERS = 1024


def check_workers(workers: int) -> None:
    """Refuse a number of processes that is none, or that no machine starts."""
    if not 1 <= workers <= MOST_WORKERS:
        allowed = f"a whole number, at least 1 and at most {MOST_WORKERS}"
        raise InputError("--workers", None, workers, allowed)


def all_cores() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _numbered(function: Callable[[TaskT], ResultT], at: int, task: TaskT) -> tuple[int, ResultT]:
    return at, function(task)


def _let_loky_kill() -> None:
    """Give loky the method that it ends workers with where neither psutil nor pgrep is there.

    Without it (joblib 1.6), a command that is interrupted in a slim container hangs.
    """
    with contextlib.suppress(ImportError):  # other systems than posix have their own
        from joblib.externals.loky.backend.popen_loky_posix import Popen

        if not hasattr(Popen, "kill"):
            Popen.kill = Popen.terminate


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C waiting, also in the processes started here, until they are ready for it."""
    if not hasattr(signal, "pthread_sigmask"):  # not on every system
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start would end the holding (Python 3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_command(command: int) -> None:
    """Let a worker end with the process ``command`` that started it, and without a traceback.

    Ctrl-C reaches every process of a terminal. Of a kill nobody is told: a thread looks whether
    the worker still has its parent. (A signal of the kernel's, Linux's ``PR_SET_PDEATHSIG``,
    would come as soon as the *thread* ends that started the worker.)
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_without, args=(command,), daemon=True).start()


def _end_without(command: int) -> None:
    while os.getppid() == command:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)
