"""Clients that give up: the share and the waits that were asked for, and nobody else changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.workload import read_workload
from simserve.records.clock import NEVER_PS, PS_PER_S
from simserve.traffic.generate import generate

REQUESTS = 20_000


def workload(**more: Any) -> Any:
    return read_workload(
        {
            "arrivals": {"rate_per_s": 50},
            "prompt_tokens": {"median": 200, "p95": 800},
            "output_tokens": 20,
            "num_requests": REQUESTS,
            **more,
        }
    )


def test_without_patience_nobody_gives_up() -> None:
    assert generate(workload(), 1).give_up_ps is None


def test_a_timeout_is_everybodys() -> None:
    requests = generate(workload(timeout_s="30s"), 1)
    assert requests.give_up_ps is not None
    assert requests.is_timeout is not None
    assert (requests.give_up_ps == 30 * PS_PER_S).all()
    assert requests.is_timeout.all()


def test_the_asked_share_cancels_after_exponential_waits() -> None:
    requests = generate(workload(cancellations={"frac": 0.25, "mean_after_s": 8}), 1)
    assert requests.give_up_ps is not None
    assert requests.is_timeout is not None
    waits_s = requests.give_up_ps[requests.give_up_ps != NEVER_PS] / PS_PER_S
    # Four standard errors each.
    assert abs(len(waits_s) / REQUESTS - 0.25) < 4 * np.sqrt(0.25 * 0.75 / REQUESTS)
    assert abs(waits_s.mean() - 8) < 4 * 8 / np.sqrt(len(waits_s))
    assert abs(waits_s.std() - 8) < 8 * 8 / np.sqrt(len(waits_s))
    assert not requests.is_timeout[requests.give_up_ps != NEVER_PS].any()


def test_who_would_cancel_later_times_out_first() -> None:
    both = generate(workload(timeout_s=5, cancellations={"frac": 0.5, "mean_after_s": 8}), 1)
    alone = generate(workload(cancellations={"frac": 0.5, "mean_after_s": 8}), 1)
    assert both.give_up_ps is not None
    assert alone.give_up_ps is not None
    assert both.is_timeout is not None
    earlier = (alone.give_up_ps != NEVER_PS) & (alone.give_up_ps < 5 * PS_PER_S)
    assert (both.is_timeout == ~earlier).all()
    assert (both.give_up_ps == np.where(earlier, alone.give_up_ps, 5 * PS_PER_S)).all()


def test_patience_changes_nothing_else_that_is_drawn() -> None:
    one = generate(workload(), 3)
    other = generate(workload(cancellations={"frac": 0.5, "mean_after_s": 8}), 3)
    for name in ("arrival_ps", "prompt_tokens", "output_tokens"):
        assert (getattr(one, name) == getattr(other, name)).all()


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": "soon"}, "timeout_s"),
        ({"cancellations": {"frac": 1.5, "mean_after_s": 3}}, "cancellations.frac"),
        ({"cancellations": {"frac": 0.1}}, "cancellations.mean_after_s"),
    ],
)
def test_impossible_patience_is_refused_by_its_key(entry: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        workload(**entry)
