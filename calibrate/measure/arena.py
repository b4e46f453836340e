"""Random values that all points share: large buffers, filled once and viewed again and again.

Filling gigabytes for each of thousands of points would take longer than measuring them, and
constants would flatter every kernel: multiplying zeros takes less power.
"""

from __future__ import annotations

from math import prod

import torch

# Values that are drawn; larger buffers repeat them. Far beyond what any cache or DRAM page sees.
_DRAWN = 1 << 24
# Buffers start at multiples of this many bytes, as an allocator's do.
_ALIGN_BYTES = 256
_ROUND_BYTES = 1 << 26


class Arena:
    """Flat buffers by name and dtype, grown when a point needs more."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._flat: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def views(
        self, name: str, dtype: torch.dtype, shape: tuple[int, ...], copies: int = 1
    ) -> list[torch.Tensor]:
        """Return ``copies`` tensors that do not overlap; what they hold is normal, of deviation 1.

        They are shared with every other caller of the same name.
        """
        values = prod(shape)
        step = -(-values * dtype.itemsize // _ALIGN_BYTES) * _ALIGN_BYTES // dtype.itemsize
        flat = self._at_least(name, dtype, step * copies)
        return [flat[i * step : i * step + values].view(shape) for i in range(copies)]

    def clear(self) -> None:
        """Forget all buffers."""
        self._flat.clear()

    def _at_least(self, name: str, dtype: torch.dtype, values: int) -> torch.Tensor:
        held = self._flat.pop((name, dtype), None)
        if held is None or len(held) < values:
            size = -(-values * dtype.itemsize // _ROUND_BYTES) * _ROUND_BYTES // dtype.itemsize
            del held  # first: both may not fit
            held = torch.empty(size, dtype=dtype, device=self._device)
            self._fill(held)
        self._flat[name, dtype] = held
        return held

    def _fill(self, flat: torch.Tensor) -> None:
        drawn = min(len(flat), _DRAWN)
        wide = flat.dtype if flat.dtype.itemsize > 1 else torch.float32
        head = torch.empty(drawn, dtype=wide, device=self._device)
        flat[:drawn] = head.normal_(generator=self._generator).to(flat.dtype)
        bits = flat.view(torch.uint8) if flat.dtype.itemsize == 1 else flat
        while drawn < len(flat):
            size = min(drawn, len(flat) - drawn)
            bits[drawn : drawn + size] = bits[:size]
            drawn += size
