"""Compiled kernels of others: where their files lie, and why one cannot be used here.

They are the very files of vLLM's wheel. They are built on libtorch's stable interface, so that
torch loads them without vLLM. A kit brings them to a host without network
(docs/calibrate-kit.md); an installed vLLM has them too.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from simserve.errors import one_line, reason_of

KIT_VARIABLE: Final = "CALIBRATE_KIT"
"""The environment variable that names the folder of an unpacked kit."""

# vllm 0.26.0 pins torch 2.11.0 (the METADATA of its wheel, 2026-07-25).
_OLDEST_TORCH: Final = (2, 11)
_HOPPER: Final = 9  # major compute capability: the files hold sm_90a code


@dataclass(frozen=True, slots=True)
class Library:
    """A file with operators for ``torch.ops``."""

    file: str
    in_vllm: str  # its folder in an installed vllm
    namespace: str  # of torch.ops

    def path(self) -> Path | None:
        """Return where the file is: in the unpacked kit, else in an installed vLLM."""
        kit = os.environ.get(KIT_VARIABLE)
        places = [Path(kit) / "kernels"] if kit else []
        vllm = importlib.util.find_spec("vllm")
        if vllm is not None and vllm.submodule_search_locations:
            places += [Path(each) / self.in_vllm for each in vllm.submodule_search_locations]
        return next((place / self.file for place in places if (place / self.file).is_file()), None)

    def missing(self) -> str | None:
        """Say why the operators cannot be used on this machine; None if they can."""
        reason = missing_gpu(_HOPPER)
        if reason is None and _torch_version() < _OLDEST_TORCH:
            reason = f"needs torch {'.'.join(map(str, _OLDEST_TORCH))}, this is {torch.__version__}"
        if reason is None and self.path() is None:
            reason = (
                f"no {self.file}: neither in ${KIT_VARIABLE} (python -m calibrate.kit unpack)"
                " nor in an installed vllm"
            )
        if reason is None:
            try:
                self.ops()
            except (OSError, RuntimeError) as error:
                reason = f"torch cannot load {self.file}: {one_line(reason_of(error))}"
        return reason

    def ops(self) -> Any:
        """Return the operators, loaded once for the process.

        Raises:
            OSError: if the file cannot be loaded.
            RuntimeError: if there is no file.
        """
        return _loaded(self)


FLASH_ATTENTION_3: Final = Library("_vllm_fa3_C.abi3.so", "vllm_flash_attn", "_vllm_fa3_C")
FLASH_MLA: Final = Library("_flashmla_C.abi3.so", ".", "_flashmla_C")


def missing_gpu(major: int | None = None) -> str | None:
    """Say why there is no GPU, or none of compute capability ``major``.x; None if there is."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    have = torch.cuda.get_device_capability()
    if major is not None and have[0] != major:
        return f"needs compute capability {major}.x, this GPU has {have[0]}.{have[1]}"
    return None


@functools.cache
def _loaded(library: Library) -> Any:
    path = library.path()
    if path is None:
        raise RuntimeError(f"no {library.file}")
    torch.ops.load_library(str(path))
    return getattr(torch.ops, library.namespace)


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)
