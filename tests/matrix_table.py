"""Writes the tables of `integrations/MATRIX.md` from the declaration that the tests play: `--check` or `--write`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from rr_matrix import EXECUTORS, FAILURES, LAYERS, MODES, Cell, everything, too_new, why_not

TARGET = Path(__file__).parents[1] / "integrations" / "MATRIX.md"
HEAD = """\
# What is tested together

Every executor, in every mode, under every layer, with every failure that goes with them. Each number is how many of
the seven modes ({modes}) are a test; each such cell asserts, on the real executor, that

- nothing starts after the trip, but for calls that were past the gate already when a parallel one tripped it,
- the same call is executed five times at most, four times where a layer blocks, and at most one model call follows the
  block (two, where an answer takes two attempts). Equal calls of one answer are one attempt. Agents that are asked side
  by side in one tool are counted apart, five times each, as no layer stands around what they call; loops of one's own
  may be taken for one, and then it is ten,
- the ledger is what the model or the provider has served, to the picodollar, every model call and every executed tool
  call is counted once, and nothing stays held,
- the stop comes as the layer promises: the public exception, an ordinary end, or an outcome.

The same executors without a guard are played as well: none stops by itself. {count} cells; made from
`tests/rr_matrix.py` by `python tests/matrix_table.py --write`, and a test fails if this page is not what that writes.

Failures:

{failures}

Executors:

{executors}

With the oldest supported frameworks (LangChain before 1.0) the cells of `callback`, `boundary` and the two together are
played, and those of raw clients: {oldest}. `create_agent` needs 1.0, and so does all that hints and blocks.
"""


def table() -> str:
    """The whole page."""
    count = sum(1 for cell in everything() if why_not(cell) is None)
    oldest = sum(1 for cell in everything() if why_not(cell) is None and not too_new(cell))
    head = HEAD.format(
        modes=", ".join(f"`{mode}`" for mode in MODES), count=f"{count:,}", oldest=f"{oldest:,} cells",
        failures="\n".join(f"- **{name}**: {what}" for name, what in FAILURES.items()),
        executors="\n".join(f"- **{name}**: {what}" for name, what in EXECUTORS.items()),
    )  # fmt: skip
    return head + "".join(_layer(layer) for layer in LAYERS)


def _layer(layer: str) -> str:
    """One table: failures down, executors across, and below it why some places are empty."""
    notes: dict[str, str] = {}
    lines: list[str] = []
    total = 0
    for failure in FAILURES:
        row = [f"| {failure} "]
        for executor in EXECUTORS:
            cells = [Cell(executor, mode, layer, failure) for mode in MODES]
            played = sum(why_not(cell) is None for cell in cells)
            total += played
            reasons = dict.fromkeys(why for cell in cells if (why := why_not(cell)) is not None)
            marks = "".join(notes.setdefault(why, f"[{len(notes) + 1}]") for why in reasons)
            row.append(f"| {played or '–'}{' ' + marks if marks else ''} ")
        lines.append("".join(row) + "|")
    head = f"\n## {layer[:1].upper()}{layer[1:]} ({LAYERS[layer]}): {total} cells\n\n"
    columns = f"| failure | {' | '.join(EXECUTORS)} |\n|---|{'--:|' * len(EXECUTORS)}\n"
    below = "".join(f"{mark} {why}\n" for why, mark in notes.items())
    return head + columns + "\n".join(lines) + "\n" + (f"\n{_listed(below)}" if below else "")


def _listed(notes: str) -> str:
    return "".join(f"- {line}\n" for line in notes.splitlines())


def main(argv: list[str]) -> int:
    """Compare or write."""
    if argv == ["--write"]:
        TARGET.write_text(table(), encoding="utf-8")
        return 0
    if argv == ["--check"]:
        fresh = TARGET.exists() and TARGET.read_text(encoding="utf-8") == table()
        print(f"{TARGET.name} is {'up to date' if fresh else 'out of date: python tests/matrix_table.py --write'}")
        return 0 if fresh else 1
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
