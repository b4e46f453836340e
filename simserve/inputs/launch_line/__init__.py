"""Launch lines as configuration: ``vllm serve …`` in, a deployment out, and back."""

from simserve.inputs.launch_line.read import LaunchLine, read_launch_line
from simserve.inputs.launch_line.write import to_serve_command

__all__ = ["LaunchLine", "read_launch_line", "to_serve_command"]
