"""The columns of a profile's tables: which tell rows apart, and what may stand in them.

``docs/profile-schema.md`` is the reference page. A column that is not required may be left
out, or its cell left empty: it then has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from simserve.inputs.data_files import normal_name

SCHEMA = 1
"""The version of the folder's layout."""

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Column:
    """One column: ``least`` is None for text; ``whole`` numbers are read as int."""

    least: float | None = None
    whole: bool = True
    default: Cell | None = None  # None: required
    one_of: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What may stand in a cell, in words."""
        if self.one_of:
            return ", ".join(one or "nothing" for one in self.one_of)
        if self.least is None:
            return "text"
        return f"{'an integer' if self.whole else 'a number'} of at least {self.least:g}"


REGIMES = ("", "split", "unsplit", "fa3")
"""How an attention kernel divides its work; never interpolated across."""
STEP_REGIMES = ("decode", "prefill", "mixed")
LATENT_FORMS = ("kernel", "layer")
"""Latent attention as its absorbed kernel alone, or as all that a layer does beside matrices."""

_TEXT, _ANY_TEXT = Column(), Column(default="")
_COUNT, _SIZE = Column(least=1), Column(least=0)
_ZERO = Column(least=0, default=0)
_NUMBER = Column(least=0, whole=False, default=0.0)
_TIME = Column(least=0, whole=False)

_ATTENTION: Mapping[str, Column] = {
    "backend": _ANY_TEXT,
    "q_dtype": _ANY_TEXT,
    "kv_dtype": _TEXT,
    "hq": _COUNT,
    "hkv": _COUNT,
    "d": _COUNT,
    "dv": _ZERO,
    "block": _ZERO,
    "regime": Column(default="", one_of=REGIMES),
    "window": _ZERO,
}
KEYS: Mapping[str, Mapping[str, Column]] = MappingProxyType(
    {
        "gemm": {
            "dtype": _TEXT,
            "backend": _ANY_TEXT,
            "m": _COUNT,
            "n": _COUNT,
            "k": _COUNT,
            "aligned": Column(least=0, default=1),
        },
        "attn_decode": {
            **_ATTENTION,
            "batch": _COUNT,
            "ctx": _COUNT,
            "shape": Column(default="uniform", one_of=("uniform", "bimodal", "trace")),
            "sum_ctx": _ZERO,
            "max_ctx": _ZERO,
            "cv": _NUMBER,
        },
        "attn_prefill": {
            **_ATTENTION,
            "n_req": Column(least=1, default=1),
            "q": _COUNT,
            "past": _SIZE,
        },
        "attn_mixed": {
            **_ATTENTION,
            "q": _COUNT,
            "past": _SIZE,
            "n_dec": _COUNT,
            "ctx": _COUNT,
            "sum_ctx": _ZERO,
            "max_ctx": _ZERO,
            "mode": _ANY_TEXT,
        },
        "mla": {
            "form": Column(default="kernel", one_of=LATENT_FORMS),
            "kv_dtype": _ANY_TEXT,
            "phase": Column(one_of=("decode", "prefill")),
            "heads": _COUNT,
            "batch": _COUNT,
            "q": _COUNT,
            "ctx": _COUNT,
        },
        "moe": {
            "dtype": _TEXT,
            "experts": _COUNT,
            "topk": _COUNT,
            "hidden": _COUNT,
            "inter": _COUNT,
            "tp": _COUNT,
            "ep": _COUNT,
            "tokens": _COUNT,
            "routing": _ANY_TEXT,
            "active": _NUMBER,
            "max_load": _NUMBER,
        },
        "pointwise": {"op": _TEXT, "tokens": _COUNT, "width": _COUNT, "dtype": _ANY_TEXT},
        "comm": {
            "op": Column(one_of=("all_reduce", "all_gather")),
            "impl": _ANY_TEXT,
            "gpus": Column(least=2),
            "bytes": _COUNT,
            "graph": _ZERO,
        },
        "step": {
            "model": _TEXT,
            "tp": _COUNT,
            "regime": Column(one_of=STEP_REGIMES),
            "n_dec": _ZERO,
            "sum_ctx": _ZERO,
            "max_ctx": _ZERO,
            "q_tokens": _ZERO,
            "past": _ZERO,
        },
    }
)
"""The columns that tell the rows of each table apart."""

TIMES: Mapping[str, str] = MappingProxyType(dict.fromkeys(KEYS, "us_p50") | {"step": "us_gpu"})
"""The column of each table that steps are priced from, in microseconds."""

_OPTIONAL = (
    "us_p50 us_iso us_min us_p10 us_p90 us_mean us_gpu us_wall us_composed n copies graph sm_mhz "
    "power_w temp_c seq t_unix"
)
MEASURES: Mapping[str, Column] = MappingProxyType(
    dict.fromkeys(_OPTIONAL.split(), _NUMBER) | {"flag": _ANY_TEXT}
)
"""Columns that any table may have beside its keys; ``n`` is the repeats, except in ``gemm``."""

NOT_READ = ("sentinels", "repeatability")
"""Tables about the measuring itself."""

# Rows of m up to this many tokens, and multiples of it, waste nothing on padding.
ALIGNMENT_TOKENS = 16


def is_aligned(tokens: int) -> bool:
    """Return whether a GEMM of ``tokens`` rows is priced from the aligned rows."""
    return tokens <= ALIGNMENT_TOKENS or tokens % ALIGNMENT_TOKENS == 0


def dtype_name(name: str) -> str:
    """Return the dtype ``name`` as tables spell it."""
    normal = normal_name(name)
    return {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "auto": "bf16"}.get(
        normal, "fp8" if normal.startswith("fp8-e") else normal
    )
