"""Simulate LLM serving: latency, throughput and cost of a deployment before it is rented.

Every public name lives here and is loaded when it is first used, so that
``import simserve`` costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing's, which takes a moment to import
if TYPE_CHECKING:
    from simserve.errors import DoesNotFitError, InputError, SimserveError
    from simserve.inputs.scenario import Scenario, load_scenario
    from simserve.planning.run_scenario import run
    from simserve.planning.sweep import SweepTable, sweep
    from simserve.results.result import Result

__version__ = "0.1.0"

__all__ = [
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
]

_HOME_OF = {
    "DoesNotFitError": "simserve.errors",
    "InputError": "simserve.errors",
    "Result": "simserve.results.result",
    "Scenario": "simserve.inputs.scenario",
    "SimserveError": "simserve.errors",
    "SweepTable": "simserve.planning.sweep",
    "load_scenario": "simserve.inputs.scenario",
    "run": "simserve.planning.run_scenario",
    "sweep": "simserve.planning.sweep",
}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'simserve' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
