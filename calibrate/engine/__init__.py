"""The reference engine: small, real, and driven by the simulator's own scheduler."""
