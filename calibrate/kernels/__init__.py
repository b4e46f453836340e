"""The kernels of a serving engine behind one small interface."""
