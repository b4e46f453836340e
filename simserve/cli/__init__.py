"""The ``simserve`` command: words of the shell in, exit status out."""

from simserve.cli.app import app, click_command, main

__all__ = ["app", "click_command", "main"]
