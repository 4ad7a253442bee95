"""
The founding incident, replayed with a real agent on this machine: `runrails demo`.

Importing this package loads no framework; `play` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails.demo.figures import Demo, Play

if TYPE_CHECKING:
    from runrails.demo.passes import Watcher

__all__ = ["Demo", "Play", "missing_packages", "play", "require_packages"]


def missing_packages() -> tuple[str, ...]:
    """What the demo needs and is not installed, by the names one would import."""
    from importlib.util import find_spec

    needed = ("langchain", "langgraph", "langchain_openai", "openai", "runrails_langchain")
    return tuple(name for name in needed if find_spec(name) is None)


def require_packages() -> None:
    """
    Make sure that everything is installed that the demo plays with.

    Raises:
        ConfigError: A package is missing; the message names the command that installs it.
    """
    from runrails.errors import ConfigError

    missing = missing_packages()
    if missing:
        raise ConfigError(
            f"The demo plays with a real agent and needs {', '.join(missing)}.",
            next_step="Install it with: pip install 'runrails[demo]'",
            missing=", ".join(missing),
        )


def play(*, retries: int, watcher: Watcher) -> Demo:
    """
    Play all three passes and return their figures. Takes some seconds; nothing leaves 127.0.0.1.

    Raises:
        ConfigError: A package is missing; the message names the command that installs it.
    """
    require_packages()
    from runrails.demo.passes import play_all

    return play_all(retries=retries, watcher=watcher)
