"""What a tool's name says: whether it does something, so that an empty answer is its way to say that it went well."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["acts"]

_NAMES_MAX = 512
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_VERBS = frozenset((
    "ack", "add", "append", "apply", "assign", "bash", "build", "checkpoint", "clear", "click", "close", "cmd",
    "command", "commit", "compile", "copy", "create", "delete", "drag", "edit", "exec", "execute", "fill", "fix",
    "focus", "format", "goto", "heartbeat", "hover", "insert", "install", "key", "label", "lint", "log", "make", "mark",
    "mkdir", "move", "navigate", "notify", "npm", "open", "patch", "post", "press", "publish", "push", "put", "remove",
    "rename", "replace", "reply", "run", "save", "scroll", "select", "send", "set", "shell", "sleep", "start", "stop",
    "store", "submit", "tag", "terminal", "test", "touch", "type", "typecheck", "update", "upload", "upsert", "wait",
    "write",
))  # fmt: skip


@lru_cache(_NAMES_MAX)
def acts(tool: str) -> bool:
    """Whether a tool of that name runs, writes, presses or sends something, as far as can be told."""
    return any(part.lower() in _VERBS for part in _PART.findall(tool[:200]))
