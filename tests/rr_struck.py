"""Ctrl-C at a chosen moment: a KeyboardInterrupt where CPython would look for signals, in chosen files."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

__all__ = ["ROOMS", "struck"]

ROOMS = ("memory.py", "_memory_books.py", "sqlite.py", "_sqlite_file.py", "_sqlite_rows.py")
CHANCES = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD"}
"""After these instructions CPython looks for signals, and nowhere else."""


def struck(verb: Callable[[], object], nth: int, rooms: Collection[str] = ROOMS) -> bool:
    """Run `verb` and raise KeyboardInterrupt where the nth chance for one is in a store. False if there are fewer."""
    seen = 0
    latest: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        code = frame.f_code
        if Path(code.co_filename).name not in rooms or code.co_name in {"mend_after", "mended"}:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            before, here = latest.get(frame), frame.f_lasti
            latest[frame] = here
            if before is not None and dis.opname[code.co_code[before]] in CHANCES:
                inside = handler(code, before) == handler(code, here)
                seen += inside
                if inside and seen == nth:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        verb()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def handler(code: CodeType, offset: int) -> int | None:
    """Where an exception raised by the instruction at this offset goes to."""
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return next((entry.target for entry in table if entry.start <= offset < entry.end), None)
