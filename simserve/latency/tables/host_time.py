"""Host time around a step's kernels, for engines that schedule ahead and for those that do not.

With ``host = step + per_seq·sequences + per_prefill_token·prefill tokens`` and ``launch`` the
time to start the kernels (one graph, or one by one):

* synchronous: ``host + max(gpu, launch) + copy_out``;
* asynchronous: ``max(gpu, host + launch) + bubble``.

Without ``host.yaml`` the roofline's host time is added, whichever it is.
"""

from __future__ import annotations

from typing import NamedTuple

from simserve.inputs.hardware_profile import GpuSpec
from simserve.latency.tables.host_file import HostTerms


class HostTime(NamedTuple):
    """A step takes ``max(gpu, floor) + added``, both linear in sequences and prefill tokens."""

    floor_s: float
    floor_per_seq_s: float
    floor_per_token_s: float
    added_s: float
    added_per_seq_s: float
    added_per_token_s: float

    def floor(self, seqs: int, prefill_tokens: int) -> float:
        """Return the least that the GPU's time counts for."""
        return self.floor_s + self.floor_per_seq_s * seqs + self.floor_per_token_s * prefill_tokens

    def added(self, seqs: int, prefill_tokens: int) -> float:
        """Return what comes on top."""
        return self.added_s + self.added_per_seq_s * seqs + self.added_per_token_s * prefill_tokens


def host_time(
    terms: HostTerms | None, gpu: GpuSpec, layers: int, *, graph: bool, ahead: bool
) -> HostTime:
    """Return the host time of steps that replay a graph or not, scheduled ahead or not."""
    if terms is None:
        host_s = gpu.efficiency["host_step_s"].value
        return HostTime(0, 0, 0, host_s, gpu.efficiency["host_per_seq_s"].value, 0)
    step_s, seq_s = terms.host_step.value, terms.host_per_seq.value
    token_s = terms.host_per_prefill_token.value
    launch_s = terms.launch_graph.value
    if not graph:
        launch_s = layers * terms.kernels_per_layer.value * terms.launch_kernel.value
    if ahead:
        return HostTime(step_s + launch_s, seq_s, token_s, terms.bubble.value, 0, 0)
    return HostTime(launch_s, 0, 0, step_s + terms.copy_out.value, seq_s, token_s)
