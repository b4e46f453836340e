"""Local processes, Ray and Dask give the same bytes, and say in one line when they cannot."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.planning.plan.backends import BACKEND_NAMES, Backend, LocalBackend, open_backend
from simserve.planning.plan.outcomes import Outcome
from simserve.planning.plan.store import OutcomeStore
from tests.planning.plan.questions import planned, planned_into, small_question, text_of

ROOT = Path(__file__).resolve().parents[3]


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed (an extra)")


@cache
def alone() -> str:
    return text_of(planned(small_question()))


@contextmanager
def two_local_workers() -> Iterator[Backend]:
    yield LocalBackend(2)


@contextmanager
def a_ray_cluster() -> Iterator[Backend]:
    ray = importlib.import_module("ray")
    # Workers of Ray are new processes: they find simserve where the tests do.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    backend = open_backend("ray", workers=1, address=None)
    try:
        yield backend
    finally:
        backend.close()
        assert ray.is_initialized()  # a cluster that others started is left to them
        ray.shutdown()


@contextmanager
def a_dask_cluster() -> Iterator[Backend]:
    distributed = importlib.import_module("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        backend = open_backend("dask", workers=1, address=cluster.scheduler_address)
        try:
            yield backend
        finally:
            backend.close()


CLUSTERS = [
    pytest.param(two_local_workers, id="local"),
    pytest.param(a_ray_cluster, id="ray", marks=needs("ray")),
    pytest.param(a_dask_cluster, id="dask", marks=needs("distributed")),
]


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_two_workers_give_the_bytes_of_one_process(cluster, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with cluster() as backend:
        assert planned_into(tmp_path, backend) == alone()
    # ... and what they stored serves a plan that computes nothing.
    store = OutcomeStore(tmp_path, resume=True)
    assert text_of(planned(small_question(), Idle(), store)) == alone()
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_killed_worker_is_one_line_and_loses_nothing(cluster, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import dataclasses

    store = OutcomeStore(tmp_path)
    question = small_question()
    runs = [
        dataclasses.replace(question.scenario, seed=seed, deployment=question.scenario.deployment)
        for seed in range(6)
    ]
    deadly = dataclasses.replace(
        question.scenario.deployment, scheduler="tests.planning.plan.deadly:Deadly"
    )
    with cluster() as backend:
        for _, outcome in backend.outcomes(runs):
            store.put(outcome)
        with pytest.raises(InputError, match="a worker was killed") as caught:
            list(backend.outcomes([dataclasses.replace(one, deployment=deadly) for one in runs]))
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)
    store.close()
    again = OutcomeStore(tmp_path, resume=True)
    assert len(again.get_all([one.digest() for one in runs])) == 6
    again.close()


class Idle:
    """Computes nothing, and complains if it is to."""

    def outcomes(self, tasks: Sequence[Scenario]) -> Iterator[tuple[int, Outcome]]:
        assert not tasks
        return iter(())

    def close(self) -> None: ...


def test_every_backend_has_a_name_on_the_command_line() -> None:
    from simserve.cli.plan_command import BackendName

    assert tuple(one.value for one in BackendName) == BACKEND_NAMES


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_backend_that_is_not_installed_is_one_line(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == package else find(wanted)
    )
    with pytest.raises(InputError, match=rf"--backend: got {name}, allowed: .*simserve\[{name}\]"):
        open_backend(name, workers=1, address=None)


def test_an_address_without_a_cluster_is_refused() -> None:
    with pytest.raises(InputError, match="--cluster: got here:1, allowed: only with --backend"):
        open_backend("local", workers=1, address="here:1")


@needs("distributed")
@pytest.mark.slow
def test_a_dask_cluster_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(InputError, match=r"--cluster: got tcp://127.0.0.1:1, allowed: the addr"):
        open_backend("dask", workers=1, address="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_ctrl_c_ends_a_plan_and_the_next_goes_on(tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "simserve", "plan", "thousand-users", "--workers", "1"]
    command += ["--store", str(tmp_path), "--resume"]
    first = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "outcomes.sqlite-wal").exists() and first.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate()
    assert first.returncode == 130 and (out, err) == ("", "simserve: interrupted\n")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Answer    1 × a100-80gb-sxm" in done.stdout
