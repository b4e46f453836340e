"""A mixture of gated experts: from routed tokens to the weighted sum of their experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class MoeShape:
    """The experts of one layer on one GPU."""

    experts: int
    top_k: int
    hidden: int
    inter: int  # of one expert, on one GPU


class Experts(Protocol):
    """All expert work of a layer: order the tokens, two products, activation, weighted sum."""

    name: str  # the backend
    dtype: str  # as in a profile's table

    def missing(self) -> str | None:
        """Say why this kernel cannot run on this machine; None if it can."""
        ...

    def refuses(self, shape: MoeShape, tokens: int) -> str | None:
        """Say why this kernel cannot serve such a call; None if it can."""
        ...

    def pack(self, gate_up: torch.Tensor, down: torch.Tensor) -> Any:
        """Take ``[experts, 2 · inter, hidden]`` and ``[experts, hidden, inter]`` weights."""
        ...

    def run(
        self,
        weights: Any,
        x: torch.Tensor,  # [tokens, hidden]
        expert_ids: torch.Tensor,  # int64[tokens, top_k]
        expert_weights: torch.Tensor,  # float32[tokens, top_k]
        out: torch.Tensor,  # [tokens, hidden]
    ) -> None:
        """Launch: write the weighted sum of every token's experts."""
        ...


def route(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids int64 and weights float32 ``[tokens, top_k]``: the softmax over the chosen."""
    chosen, ids = logits.float().topk(top_k, dim=-1)
    return ids, chosen.softmax(dim=-1)


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """The two weights of all experts, as the products read them."""

    gate_up: torch.Tensor  # [experts, 2 · inter, hidden]
    down: torch.Tensor  # [experts, hidden, inter]


class LoopedExperts:
    """One product per expert that has tokens: the CPU's way, it asks the host how many."""

    name = "torch"
    dtype = "any"

    def missing(self) -> str | None:
        """Torch is always there."""
        return None

    def refuses(self, shape: MoeShape, tokens: int) -> str | None:
        """Every shape is served."""
        return None

    def pack(self, gate_up: torch.Tensor, down: torch.Tensor) -> ExpertWeights:
        """Keep the weights as they are."""
        return ExpertWeights(gate_up, down)

    def run(
        self,
        weights: ExpertWeights,
        x: torch.Tensor,
        expert_ids: torch.Tensor,
        expert_weights: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Write the weighted sum, expert by expert."""
        out.zero_()
        for expert in sorted(set(expert_ids.flatten().tolist())):
            tokens, choice = torch.where(expert_ids == expert)
            inner = _gated(x[tokens] @ weights.gate_up[expert].t())
            share = expert_weights[tokens, choice, None].to(x.dtype)
            out.index_add_(0, tokens, inner @ weights.down[expert].t() * share)


class GroupedMm:
    """``torch._grouped_mm`` over tokens sorted by expert; the host needs no counts."""

    name = "grouped-mm"
    dtype = "bf16"

    def missing(self) -> str | None:
        """Say if this torch has no grouped product."""
        return None if hasattr(torch, "_grouped_mm") else "this torch has no _grouped_mm"

    def refuses(self, shape: MoeShape, tokens: int) -> str | None:
        """Refuse rows that do not start at multiples of 16 bytes."""
        if shape.hidden % 8 or shape.inter % 8:
            return (
                f"hidden and inter sizes must be multiples of 8, got {shape.hidden}, {shape.inter}"
            )
        return None

    def pack(self, gate_up: torch.Tensor, down: torch.Tensor) -> ExpertWeights:
        """Return the weights in bfloat16."""
        return ExpertWeights(
            gate_up.to(torch.bfloat16).contiguous(), down.to(torch.bfloat16).contiguous()
        )

    def run(
        self,
        weights: ExpertWeights,
        x: torch.Tensor,
        expert_ids: torch.Tensor,
        expert_weights: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Write the weighted sum of every token's experts."""
        tokens, top_k = expert_ids.shape
        ordered, order = expert_ids.flatten().sort(stable=True)
        every = torch.arange(weights.down.shape[0], device=x.device)
        ends = torch.searchsorted(ordered, every, right=True).to(torch.int32)
        inner = torch._grouped_mm(x[order // top_k], weights.gate_up.transpose(1, 2), offs=ends)
        rows = torch._grouped_mm(_gated(inner), weights.down.transpose(1, 2), offs=ends)
        back = torch.empty_like(rows).index_copy_(0, order, rows).view(tokens, top_k, -1)
        out.copy_((back * expert_weights[..., None]).sum(dim=1))


def _gated(gate_up: torch.Tensor) -> torch.Tensor:
    """Return ``silu(gate) · up``."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up
