"""How fast the simulator is, counted against bare SimPy timeouts on the same machine."""
