"""The command line: thin verbs over the functions of the library."""

from leanconv.cli.app import app, main

__all__ = ["app", "main"]
