"""Python's first import in every process of a command: pretends a GPU once torch is imported."""
# mypy: ignore-errors

from __future__ import annotations

import importlib.abc
import importlib.util
import sys

# Modules, and the function of ``world`` that changes each right after it was imported.
AFTER = {
    "torch": "gpu",
    "simserve.inputs.model_catalogue": "small_models",
    "calibrate.plans.grids": "small_grids",
    "calibrate.plans.h200": "small_plan",
    "calibrate.validate.plans": "small_validation",
    "calibrate.engine.runner": "few_graphs",
    "calibrate.kernels.libraries": "compiled_kernels",
    "calibrate.kernels.flashinfer_backend": "flashinfer",
    "calibrate.kernels.trials": "small_trials",
    "calibrate.kernels.trials_dense": "small_products",
    "calibrate.kernels.triton_decode": "triton",
    "calibrate.kernels.triton_pointwise": "quick_ops",
}


class After(importlib.abc.MetaPathFinder):
    """Finds those modules as they are found without it."""

    def __init__(self):
        self.finding = set()

    def find_spec(self, name, path=None, target=None):
        if name not in AFTER or name in self.finding:
            return None
        self.finding.add(name)
        spec = importlib.util.find_spec(name)
        self.finding.discard(name)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            world = importlib.import_module("tests.calibrate.gpu.world")
            getattr(world, AFTER[name])(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, After())
