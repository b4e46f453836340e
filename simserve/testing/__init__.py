"""Conformance checks for other people's policies."""

from simserve.testing.scheduler_laws import check_scheduler

__all__ = ["check_scheduler"]
