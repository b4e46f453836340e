"""Predictions beside measurements of real engines: kernel, step, request, deployment."""
