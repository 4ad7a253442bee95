"""README and the pages of docs/, read for tests: their code blocks, tables, links and headings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[1]
sys.path.append(str(TOP / "docs" / "_ext"))  # for `rr_commands`, which knows no Sphinx

BESIDES = ("README.md", "CONTRIBUTING.md", "integrations/README.md", "integrations/runrails_gateway/README.md")
"""Pages that stand elsewhere and are checked alike."""
PAGES = tuple(sorted([*BESIDES, *(page.relative_to(TOP).as_posix() for page in (TOP / "docs").rglob("*.md"))]))

_FENCE = re.compile(r"(`{3,}|:{3,})(.*)")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_CHECKED = re.compile(r"<!-- checked: (.+) -->")


class Block(NamedTuple):
    """A code block."""

    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    """Why it is only looked at."""


class Row(NamedTuple):
    """A row of a table: its cells as they are written."""

    page: str
    line: int
    cells: tuple[str, ...]


def read(page: str) -> str:
    """A page as it stands."""
    return (TOP / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """Every fenced block, but for directives."""
    lines = read(page).splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.fullmatch(lines[at])
        if fence is None:
            at += 1
            continue
        end = next(number for number in range(at + 1, len(lines)) if lines[number].rstrip() == fence[1])
        before = next((line for line in reversed(lines[:at]) if line.strip()), "")
        marker = _NOT_RUN.fullmatch(before.strip())
        if not fence[2].startswith("{"):
            text = "\n".join(lines[at + 1 : end]) + "\n"
            yield Block(page, at + 1, fence[2].strip(), text, marker[1] if marker else None)
        at = end + 1


def prose(page: str) -> str:
    """A page without its fenced blocks, line for line."""
    kept, fence = [], ""
    for line in read(page).splitlines():
        found = _FENCE.match(line)
        if found and (not fence or line.rstrip() == fence):
            fence = "" if fence else found[1]
            kept.append("")
        else:
            kept.append("" if fence else line)
    return "\n".join(kept)


def checked_tables() -> Iterator[tuple[str, list[Row]]]:
    """Every table with `<!-- checked: WHAT -->` above it, and what it is checked against."""
    for page in PAGES:
        lines = prose(page).splitlines()
        for at, line in enumerate(lines):
            marker = _CHECKED.fullmatch(line.strip())
            if marker:
                rows = []
                for number in range(at + 3, len(lines)):
                    if not lines[number].startswith("|"):
                        break
                    rows.append(Row(page, number + 1, _cells(lines[number])))
                yield marker[1], rows


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def code(cell: str) -> str:
    """The first piece of code in a cell, or the cell."""
    found = re.search(r"`([^`]+)`", cell)
    return found[1] if found else cell


def anchors(page: str) -> set[str]:
    """What may stand after # in a link to the page, as GitHub and MyST make it of headings."""
    text = read(page)
    for included in re.findall(r"```\{include\} (\S+)", text):
        target = (TOP / page).parent.joinpath(included).resolve().relative_to(TOP).as_posix()
        text += "\n" + read(target)
    titles = re.findall(r"^#{1,4} (.+)$", text, flags=re.MULTILINE)
    return {_slug(title) for title in titles}


def _slug(title: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower())
    return plain.replace(" ", "-")
