"""Readers of other people's kernel measurements; each writes a table folder of our own."""
