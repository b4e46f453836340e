"""Request logs as files: one module per format, one door for all of them."""

from simserve.traffic.trace_formats.detect import FORMATS, detect_format, load_trace

__all__ = ["FORMATS", "detect_format", "load_trace"]
