"""What runs the notebooks and compares what came out: for their tests, and for `.ci/notebooks.py`, which saves them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
OFFLINE = Path(__file__).with_name("notebooks") / "offline"
NAMES = tuple(sorted(path.name for path in FOLDER.glob("[0-9]*.ipynb")))
CELL_SECONDS_MAX = 240
STARTS_MAX = 3
"""Jupyter gives a kernel ports that were free a moment ago. Where somebody has taken one meanwhile, it dies."""
EXPECTED = "raises-exception"
"""The tag of a cell that is meant to be stopped."""

SECRETS = re.compile(r"\b(?:sk-[\w-]{8,}|rr_(?:live|test)_\w{12,}|whsec_\w+|AKIA\w{12,})")
"""What looks like a key."""
PATHS = re.compile(r"(?:^|[\s\"'(=])(/(?:home|root|tmp|work|usr|opt|var|Users|private)/[^\s\"')]*)", re.MULTILINE)
"""What looks like a place on somebody's machine."""

METER = "runrails · "
"""How the meter under a working cell begins. It is drawn where a cell works for a quarter of a second: now and then."""

_VARYING = (
    (re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), ""),
    (re.compile(r"\b[0-9a-f]{16}r[0-9a-f]{8,}\b"), "RUN"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), r"\1:PORT"),
    (re.compile(r"\brr_(live|test)_\w+"), r"rr_\1_ID"),
    (re.compile(r"\b20\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|\+00:00)?)?"), "DATE"),
    (re.compile(r"\b20\d\d-\d\d\b"), "MONTH"),
    (re.compile(r"\b\d+(?:[.,]\d+)* ?(?:s|ms|µs|seconds|min)\b"), "TIME"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "ADDRESS"),
    (re.compile(r"\b(started_ms|duration_ms)=\d+"), r"\1=TIME"),
    (re.compile(r"\brr-[0-9a-f]{6,}\b"), "ELEMENT"),
)
"""What differs from run to run, and what stands for it where outputs are compared."""


def read(name: str) -> Any:
    """A notebook as it is committed."""
    return nbformat.read(FOLDER / name, as_version=4)


def execute(name: str, home: Path) -> Any:
    """Run every cell in a new kernel that has an empty home, a ledger of its own and no network; the notebook back."""
    for _ in range(STARTS_MAX - 1):
        try:
            return _executed(name, home)
        except RuntimeError as error:
            if "Kernel died before" not in str(error):
                raise
    return _executed(name, home)


def _executed(name: str, home: Path) -> Any:
    from nbclient import NotebookClient

    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS_MAX,
        startup_timeout=CELL_SECONDS_MAX,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's libraries; what a kernel warns of is in its outputs
        asyncio.run(client.async_execute(env=surroundings(home)))
    return normalised(notebook)


def surroundings(home: Path) -> dict[str, str]:
    """The environment of a kernel: nobody's keys and settings, nobody's files."""
    env = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("RUNRAILS_", "OPENAI_", "ANTHROPIC_", "AWS_", "LANG", "JPY_", "MPL", "PYTEST", "COV"))
        and not name.lower().endswith("_proxy")
    }
    paths = [str(OFFLINE), *filter(None, [env.get("PYTHONPATH")])]
    return env | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")]),
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "TMPDIR": str(home),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(home / "matplotlib")),
        "RUNRAILS_STORE": f"sqlite:///{home / 'ledger.db'}",
        "LANGSMITH_TRACING": "false",
        "COLUMNS": "100",
        "PYTHONHASHSEED": "0",
    }


def normalised(notebook: Any) -> Any:
    """Without what a machine or an editor leaves behind, so that a change of the text is a small difference."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    count = 0
    for place, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{place:02}"
        cell.metadata = {"tags": [EXPECTED]} if EXPECTED in cell.metadata.get("tags", ()) else {}
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = {}
            if output.output_type == "execute_result":
                output.execution_count = count
            output.pop("transient", None)
    return notebook


def keep_equal(old: Any, new: Any) -> Any:
    """`new`, with the old outputs of every cell whose code and text are the same: pictures and ids stay as they are."""
    before = {cell.source: cell for cell in old.cells if cell.cell_type == "code"}
    for cell in new.cells:
        earlier = before.get(cell.source)
        if cell.cell_type == "code" and earlier is not None and list(told(earlier)) == list(told(cell)):
            cell.outputs = earlier.outputs
    return normalised(new)


def told(cell: Any) -> Iterator[str]:
    """What a cell's outputs say as text, without what varies; of pictures and HTML that there are some."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield f"{output.name}: {fixed(output.text)}"
        elif output.output_type == "error":
            yield f"error: {output.ename}"
        elif not str(output.data.get("text/plain", "")).startswith(METER):
            kinds = sorted(output.data)
            yield f"{' '.join(kinds)}: {fixed(str(output.data.get('text/plain', '')))}"


def fixed(text: str) -> str:
    """`text` with marks for what varies."""
    for pattern, mark in _VARYING:
        text = pattern.sub(mark, text)
    return text


def texts(notebook: Any) -> Iterator[tuple[int, str]]:
    """(cell, text) of everything that outputs say, as it stands there."""
    for place, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield place, str(output.text)
            elif output.output_type == "error":
                yield place, "\n".join(output.traceback)
            else:
                for kind, value in output.data.items():
                    if kind.startswith("text/"):
                        yield place, str(value)
