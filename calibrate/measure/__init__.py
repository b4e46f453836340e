"""How a point is measured: clocks, rotating buffers, a watched worker, and a journal."""
