"""
The pieces that everything shown as HTML is made of.

All are functions of values. What they are given as text is escaped here, except where a parameter is called `body` or
`parts`: that is HTML already, made by these functions. Nothing needs JavaScript or fetches anything.
"""

from __future__ import annotations

import html
import re
from enum import StrEnum
from typing import TYPE_CHECKING

from runrails.showing.style import PAGE_STYLE, STYLE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Tone", "bar", "escape", "fragment", "page", "panel", "paragraph", "table"]

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, marks that turn the direction of text, and halves of letters, which no file takes."""
COLUMNS_NARROW = 2
"""A table of more columns is shown row by row where there is no more room than on a phone."""
WORD_MAX = 24
"""A longer word may be broken."""
_NUMBER, _SOFT, _LONG = ' class="rr-num"', ' class="rr-soft"', ' class="rr-long"'
_TRACK = 1_000
"""How wide a bar is drawn, before it is stretched."""


class Tone(StrEnum):
    """How something stands; a colour, never the only sign of it."""

    OK = "ok"
    WARN = "warn"
    STOP = "stop"
    PLAIN = "plain"


def escape(text: str) -> str:
    """Text as HTML, also between quotes; what cannot be seen or would turn the text around becomes `?`."""
    return html.escape(_UNSEEN.sub("?", text))


def paragraph(text: str, *, soft: bool = False) -> str:
    """One paragraph of text."""
    return f"<p{_SOFT if soft else ''}>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A table of text; `right` are the places, from 0, of columns of numbers."""

    wide = len(columns) > COLUMNS_NARROW and all(columns[1:])
    head = "".join(f"<th{_NUMBER if place in right else ''}>{escape(text)}</th>" for place, text in enumerate(columns))
    labels = [f' data-label="{escape(text)}"' if wide and text else "" for text in columns]
    body = "".join(
        f"<tr>{''.join(_cell(text, labels[place], number=place in right) for place, text in enumerate(row))}</tr>"
        for row in rows
    )
    kind = "rr-table rr-wide" if wide else "rr-table"
    top = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f'<div class="rr-scroll"><table class="{kind}">{top}<tbody>{body}</tbody></table></div>'


def _cell(text: str, label: str, *, number: bool) -> str:
    long = not number and len(text) > WORD_MAX and any(len(word) > WORD_MAX for word in text.split())
    return f"<td{_NUMBER if number else _LONG if long else ''}{label}>{escape(text)}</td>"


def bar(label: str, part: int, whole: int | None, *, text: str, tone: Tone = Tone.PLAIN) -> str:
    """
    How much of a whole is used, as a bar under its label and `text`.

    Args:
        label: What is measured.
        part: How much of it; more than the whole fills the bar.
        whole: Of how much; None draws no bar.
        text: The same in words: bars cannot be read aloud.
        tone: Its colour.
    """
    head = f'<div class="rr-bar-head"><span>{escape(label)}</span><span class="rr-bar-text">{escape(text)}</span></div>'
    track = ""
    if whole is not None:
        filled = _TRACK if part >= whole else max(0, part) * _TRACK // whole
        track = (
            f'<svg class="rr-track" viewBox="0 0 {_TRACK} 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="rr-track-all" width="{_TRACK}" height="8"></rect>'
            f'<rect class="rr-track-part" width="{filled}" height="8"></rect></svg>'
        )
    return f'<div class="rr-bar rr-{tone}">{head}{track}</div>'


def panel(title: str, body: str, *, tone: Tone = Tone.PLAIN) -> str:
    """A framed piece under a title; `body` is HTML."""
    return f'<div class="rr-panel rr-{tone}"><div class="rr-title">{escape(title)}</div>{body}</div>'


def fragment(*parts: str) -> str:
    """Pieces with their style, to be put into any page; `parts` are HTML."""
    body = f'<div class="rr-out"><style>{STYLE}</style>{"".join(parts)}</div>'
    # Jupyter would set what stands between two dollar signs as a formula.
    return f'<div class="tex2jax_ignore mathjax_ignore">{body}</div>'


def page(title: str, *parts: str) -> str:
    """A whole document that needs nothing else, and is allowed nothing else; `parts` are HTML."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n"
        f'<body>\n<main class="rr-page">\n<h1>{escape(title)}</h1>\n{fragment(*parts)}\n</main>\n</body>\n</html>\n'
    )
