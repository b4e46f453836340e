"""The operators of a step of one model, each with a table's answer or the roofline's.

Per layer: the matrices, attention, two norms, rotation and KV store, the activation, and with
tensor parallelism two all-reduces; around the layers embedding, LM head and sampling, the
last two by sequences. The same operators as the roofline's, which docs/profile-schema.md lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simserve.inputs.model_matrices import Matrix, layer_matrices, padded_vocab
from simserve.latency.tables.answers import ROOFLINE
from simserve.latency.tables.attention import ChunkAttention, DecodeAttention, attention
from simserve.latency.tables.experts import routed_experts
from simserve.latency.tables.gemms import Gemms, Operator
from simserve.latency.tables.mixed import MixedSurfaces
from simserve.latency.tables.selection import Setting
from simserve.latency.tables.small_kernels import collectives, elementwise


@dataclass(frozen=True, slots=True)
class Operators:
    """What a step's GPU time is the sum of.

    ``by_tokens`` and ``by_seqs`` are names and answers by the tokens and the sequences of a
    step. ``missing`` names, in words, what no table answers; ``raised`` counts, by table, the
    rows that were quicker than the datasheet allows, as a kernel alone in a cache can be.
    """

    by_tokens: tuple[tuple[str, Operator], ...]
    by_seqs: tuple[tuple[str, Operator], ...]
    decodes: tuple[DecodeAttention, ...]
    chunks: tuple[ChunkAttention, ...]
    mixed: tuple[MixedSurfaces | None, ...]
    missing: tuple[str, ...]
    raised: Mapping[str, int]


def compose(setting: Setting) -> Operators:
    """Return the operators of the setting's model.

    Raises:
        InputError: if a table is there, but not for this model at this tp.
    """
    model, tp = setting.model, setting.tp
    gemms = Gemms(setting)
    experts = routed_experts(setting)
    by_tokens = [
        (one.name, gemms.operator(one))
        for one in layer_matrices(model, tp)
        if one.part != "experts" or experts is None
    ]
    if experts is not None:
        by_tokens.append(("experts", experts))
    head = Matrix("head", "lm_head", -(-padded_vocab(model) // tp), model.hidden_size, 1)
    by_seqs = [(head.name, gemms.operator(head))]
    not_modelled = []
    for name, goes_by_seqs, operator in (*elementwise(setting), *collectives(setting)):
        (by_seqs if goes_by_seqs else by_tokens).append((name, operator))
    decodes, chunks, mixed, missing, raised = attention(setting)
    unanswered = [name for name, one in (*by_tokens, *by_seqs) if one(1).source == ROOFLINE]
    if setting.profile.host is None:
        not_modelled.append("host time")
    return Operators(
        tuple(by_tokens),
        tuple(by_seqs),
        tuple(decodes),
        tuple(chunks),
        tuple(mixed),
        (*unanswered, *missing, *not_modelled),
        {"gemm": gemms.raised, **raised},
    )
