"""The ``simserve`` command: words of the shell in, exit status out."""

from simserve.cli.interrupt import leave

try:
    from simserve.cli.app import app, click_command, main
except KeyboardInterrupt:  # typer takes a moment to import
    leave()

__all__ = ["app", "click_command", "main"]
