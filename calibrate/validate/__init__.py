"""Calibrate, simulate, replay for real, compare: was the simulator right?"""
