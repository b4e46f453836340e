"""Compile the FlashInfer modules that the kernels here use, so that the host need not.

Runs where torch with CUDA, flashinfer, ninja, nvcc and a C compiler are; a GPU is not needed.
About four minutes of one core.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from simserve.errors import InputError, one_line, reason_of

Say = Callable[[str], None]
_ARCHITECTURE: Final = "9.0a"  # Hopper
_HEAD_SIZE: Final = 128
_LATENT, _ROPE = 512, 64


def build(archive: Path, cuda_home: Path, say: Say) -> None:
    """Write an archive of modules, ``NAME/NAME.so`` each.

    Raises:
        InputError: if the packages or the compiler are missing, or do not get along.
    """
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= _settings(Path(scratch), cuda_home)
        try:
            built = [_built(spec, say) for spec in _specs()]
        except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
            allowed = "torch with CUDA, flashinfer, ninja, nvcc"
            raise InputError("modules", None, one_line(reason_of(error)), allowed) from error
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:xz") as packed:
            for path in built:
                packed.add(path, arcname=f"{path.stem}/{path.name}")
    say(f"{archive}: {len(built)} modules")


def _settings(scratch: Path, cuda_home: Path) -> dict[str, str]:
    """Return FlashInfer's settings; they are read when it is imported.

    The modules link against the driver's library, which a machine without a GPU lacks: an empty
    one of the same name will do.
    """
    stub = scratch / "libcuda.so"
    command = ["cc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(stub), "-x", "c", os.devnull]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError("modules", "cc", reason_of(error), "a C compiler") from error
    return {
        "CUDA_HOME": str(cuda_home),
        "FLASHINFER_CUDA_ARCH_LIST": _ARCHITECTURE,
        "FLASHINFER_WORKSPACE_BASE": str(scratch),
        "FLASHINFER_EXTRA_LDFLAGS": f"-L{scratch}",
    }


def _specs() -> Iterator[Any]:
    """Yield what to compile: prefill (also tensor-core decode) per KV dtype, latent attention."""
    torch = importlib.import_module("torch")
    modules = importlib.import_module("flashinfer.jit.attention.modules")
    half, index, size = torch.bfloat16, torch.int32, _HEAD_SIZE
    for cache in (half, torch.float8_e4m3fn):
        yield modules.gen_batch_prefill_module(
            "fa2", half, cache, half, index, size, size, 0, False, False, False
        )
    for backend in ("fa2", "fa3"):
        yield modules.gen_batch_mla_module(backend, half, half, half, index, _LATENT, _ROPE, False)


def _built(spec: Any, say: Say) -> Path:
    spec.build(False)
    path = Path(spec.jit_library_path)  # not one that was prebuilt before
    say(f"{path.stem}: {path.stat().st_size / 2**20:.1f} MiB")
    return path
