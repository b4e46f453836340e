"""Request logs as files: one module per format, one door for all of them."""

from simserve.traffic.trace_formats.columns import Part, TraceFile
from simserve.traffic.trace_formats.detect import FORMATS, detect_format
from simserve.traffic.trace_formats.read import load_trace, read_trace

__all__ = ["FORMATS", "Part", "TraceFile", "detect_format", "load_trace", "read_trace"]
