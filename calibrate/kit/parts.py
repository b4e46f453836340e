"""What a kit holds: which wheels, which compiled kernels, from where.

The host is taken to have torch and what comes with it. Kernel packages are pinned to versions
that were tried with that torch; everything that simserve itself needs comes in the version that
is installed where the kit is collected, because that is what the tests ran with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PYTHON: Final = (3, 12)
"""The host's Python: compiled wheels are for this one."""

# manylinux tags in use; pip matches them exactly, so each must be named.
PLATFORMS: Final = tuple(
    f"{tag}_x86_64"
    for tag in (
        "manylinux_2_34",
        "manylinux_2_28",
        "manylinux_2_27",
        "manylinux_2_24",
        "manylinux_2_17",
        "manylinux2014",
    )
)

MIB: Final = 2**20
LIMIT_BYTES: Final = 64 * MIB
"""What may be brought along in all, the repository included."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A package of kernels on PyPI; the versions were tried with torch 2.11.0 and CUDA 13.0."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """A file of compiled kernels inside a wheel that is itself too large to bring."""

    file: str
    member: str  # its path in the wheel
    licence: str


VLLM: Final = Pinned("vllm", "0.26.0", "Apache-2.0")
FROM_VLLM: Final = (
    Extracted(
        "_vllm_fa3_C.abi3.so",
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so",
        "BSD-3-Clause (FlashAttention), Apache-2.0 (vLLM)",
    ),
    Extracted(
        "_flashmla_C.abi3.so", "vllm/_flashmla_C.abi3.so", "MIT (FlashMLA), Apache-2.0 (vLLM)"
    ),
)
KERNEL_WHEELS: Final = (
    Pinned("flashinfer-python", "0.6.8.post1", "Apache-2.0"),
    Pinned("apache-tvm-ffi", "0.1.9", "Apache-2.0"),
)

# Needed by simserve or by these packages themselves, and not part of a usual torch image, or
# there in a version that may be too old.
OWN_WHEELS: Final = (
    "annotated-doc",
    "annotated-types",
    "msgspec",
    "pydantic",
    "pydantic-core",
    "shellingham",
    "simpy",
    "typer",
    "typing-extensions",
    "typing-inspection",
)
EXPECTED_ON_HOST: Final = (
    "cloudpickle",
    "contourpy",
    "cycler",
    "einops",
    "filelock",
    "fonttools",
    "jinja2",
    "joblib",
    "kiwisolver",
    "markdown-it-py",
    "matplotlib",
    "mdurl",
    "ninja",
    "numpy",
    "nvidia-ml-py",
    "packaging",
    "pandas",
    "pillow",
    "pip",
    "pyarrow",
    "pygments",
    "pyparsing",
    "python-dateutil",
    "pyyaml",
    "requests",
    "rich",
    "six",
    "tabulate",
    "torch",
    "tqdm",
    "triton",
)
