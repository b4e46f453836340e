"""Measure a GPU's kernels into a profile, and check the simulator against a real engine.

The only package that knows torch; nothing in ``simserve`` imports it.
"""
