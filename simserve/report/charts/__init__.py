"""Figures: each is a function, data in and a matplotlib Figure out."""
