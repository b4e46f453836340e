"""Plans by name, for any models of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from calibrate.plans import cpu, h200, kernels_of
from calibrate.plans.kernels_of import Backends
from calibrate.plans.plan import Plan
from simserve.errors import unknown_name
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec

PLANS = (h200.NAME, cpu.NAME)


def make_plan(
    name: str,
    *,
    blocks: Sequence[str] = (),
    models: Sequence[str] = (),
    attention: str = "",
    mla: str = "",
) -> Plan:
    """Return a plan, of some blocks and for some models if any are named.

    Raises:
        InputError: for a plan, a block or a model that is not known.
    """
    if name == cpu.NAME:
        if models and set(models) != {cpu.CPU_MODEL.name}:
            raise unknown_name("--model", "", models[0], (cpu.CPU_MODEL.name,))
        return cpu.cpu_plan(attention).select(blocks, models)
    if name != h200.NAME:
        raise unknown_name("--plan", "", name, PLANS)
    known = [load_model(one, "--model", "").name for one in models]
    rest = [one for one in known if one not in h200.MODELS]
    # The models of the plan keep the value that they have in it; others come after.
    plan = h200.h200_plan((*h200.MODELS, *rest), attention, mla)
    return plan.select(blocks, known)


def backends_of(name: str) -> Backends:
    """Return the kernels that a plan prefers."""
    return kernels_of.CPU if name == cpu.NAME else kernels_of.H200


def model_named(name: str) -> ModelSpec:
    """Return a model of the plans: the CPU's own, or one of the catalogue."""
    return cpu.CPU_MODEL if name == cpu.CPU_MODEL.name else load_model(name)
