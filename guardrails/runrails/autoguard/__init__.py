"""
Guarding a program that knows nothing of runrails: `runrails run -- python agent.py`, or the environment alone.

How it comes about: `boot` runs when a Python starts, from a `sitecustomize` that `runrails run` puts on its path, or
from the distribution's `.pth` file where a budget is in the environment. It waits for the import of an SDK that an
adapter can guard (entry points `runrails.autoguard`) and has it patched then. Everything the program does, in all its
processes, belongs to one run.
"""

from __future__ import annotations
