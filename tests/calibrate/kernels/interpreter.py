"""Triton's interpreter, mended in three places; import it before any kernel is.

Triton 3.6 reads a loop's bounds by ``int`` of a one-element array, which NumPy 2.4 refuses;
multiplies the bits of bfloat16 values, which it keeps as integers; and cuts floats to fewer bits
where a GPU rounds them.
"""

# mypy: disable-error-code="import-untyped"
from __future__ import annotations

import os
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

patch_tensor = interpreter._patch_lang_tensor
create_dot = interpreter.InterpreterBuilder.create_dot
convert_float = interpreter._convert_float
ROUNDED = {tl.bfloat16: torch.bfloat16, tl.float8e4nv: torch.float8_e4m3fn}


def patch_tensor_and_index(tensor: Any, scope: Any) -> None:
    patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def widened(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    bits = handle.data.astype("uint32") << 16
    return interpreter.TensorHandle(bits.view("float32"), tl.float32)


def create_widened_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    return create_dot(self, widened(a), widened(b), *rest)


def convert_and_round(values: Any, source: Any, target: Any, rounding: Any) -> Any:
    if source != tl.float32 or target not in ROUNDED:
        return convert_float(values, source, target, rounding)
    rounded = torch.from_numpy(np.array(values, dtype=np.float32)).to(ROUNDED[target])
    return rounded.view(torch.uint8).numpy().view(f"uint{target.primitive_bitwidth}")


interpreter._convert_float = convert_and_round
interpreter._patch_lang_tensor = patch_tensor_and_index
interpreter.InterpreterBuilder.create_dot = create_widened_dot
