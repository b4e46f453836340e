"""The names that code written against simserve may use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import simserve

PUBLIC = {
    "DoesNotFitError",
    "InputError",
    "Result",
    "Scenario",
    "SimserveError",
    "SweepTable",
    "__version__",
    "load_scenario",
    "run",
    "sweep",
}


def test_public_names_are_these_and_no_others() -> None:
    assert set(simserve.__all__) == PUBLIC == set(dir(simserve))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_the_object_of_its_home(name: str) -> None:
    found = getattr(simserve, name)
    assert getattr(found, "__name__", "__version__") == name


def test_names_do_not_depend_on_what_was_imported_before() -> None:
    code = "import simserve.planning.sweep, simserve; assert callable(simserve.sweep)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulate'"):
        _ = simserve.simulate
