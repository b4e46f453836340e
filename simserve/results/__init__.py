"""Records to numbers: metrics, the verdict, objectives, and the files of a run.

Nothing here is computed inside the engine's loop, so a measured run written as the same
records is scored by the same code as a simulated one.
"""
