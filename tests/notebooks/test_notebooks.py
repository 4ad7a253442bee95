"""The notebooks run to the last cell, offline, and say what is committed. `.ci/notebooks.py` saves them."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient")

from rr_notebooks import EXPECTED, FOLDER, NAMES, OFFLINE, PATHS, SECRETS, execute, read, texts, told

LINES_MAX = 15
SECONDS = ("second", "minute")


@pytest.fixture(scope="session")
def matplotlib_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels keep the list of fonts, which takes seconds to make."""
    return tmp_path_factory.mktemp("matplotlib")


@pytest.mark.timeout(300)  # 2 to 20 seconds of work; a crowded machine takes its time
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_run_says_what_is_committed(
    name: str, tmp_path: Path, matplotlib_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cell by cell, but for times, ids and ports; nothing fails, and nothing speaks to another machine."""
    monkeypatch.setenv("MPLCONFIGDIR", str(matplotlib_cache))
    committed = [list(told(cell)) for cell in read(name).cells if cell.cell_type == "code"]

    fresh = [list(told(cell)) for cell in execute(name, tmp_path).cells if cell.cell_type == "code"]

    assert committed == fresh


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_are_clean(name: str) -> None:
    """No error that is not meant, no warning, no key, nobody's path; every cell was run."""
    notebook = read(name)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error" or EXPECTED in cell.metadata.get("tags", ()), (name, cell.source)
            assert output.get("name") != "stderr", (name, output.text)
    for place, text in texts(notebook):
        assert SECRETS.search(text) is None, (name, place)
        assert PATHS.search(text) is None, (name, place, PATHS.search(text))
        assert "Warning: " not in text, (name, place)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_prose_with_short_cells(name: str) -> None:
    """It begins by saying what one will see and how long it takes, has a link to read on, and no cell is long."""
    cells = read(name).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert cells[0].cell_type == "markdown"
    assert any(word in prose[0] for word in SECONDS), name
    assert "](" in prose[-1], name
    for cell in cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= LINES_MAX, (name, cell.source)


@pytest.mark.parametrize("name", NAMES)
def test_dollars_are_no_formulas(name: str) -> None:
    """Jupyter sets what stands between two dollar signs as mathematics, unless they are escaped."""
    for cell in read(name).cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
            assert re.search(r"(?<!\\)\$", prose) is None, (name, prose)


@pytest.mark.parametrize("name", NAMES)
def test_dollars_in_panels_are_no_formulas_either(name: str) -> None:
    """What is shown as HTML asks to be left alone, wherever it has dollars."""
    for cell in read(name).cells:
        for output in cell.get("outputs", []):
            html = output.get("data", {}).get("text/html", "")
            assert "$" not in html or "mathjax_ignore" in html, (name, cell.source)


def test_the_recordings_are_what_their_program_makes() -> None:
    """The file that notebook 04 audits can be made anew."""
    made = importlib.util.spec_from_file_location("record_runs", FOLDER / "record_runs.py")
    assert made is not None
    assert made.loader is not None
    maker = importlib.util.module_from_spec(made)
    made.loader.exec_module(maker)
    assert (FOLDER / "recorded_runs.jsonl").read_text(encoding="utf-8").splitlines() == list(maker.runs())


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """Files and headings that are linked to are there; all that is far away are issues and pull requests."""
    for cell in read(name).cells:
        if cell.cell_type != "markdown":
            continue
        for link in re.findall(r"\]\(([^)]+)\)", cell.source):
            if link.startswith("https:"):
                assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+", link), link
                continue
            path, _, heading = link.partition("#")
            text = (FOLDER / path).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
            assert not heading or heading in anchors, link


def test_a_notebook_s_kernel_is_offline() -> None:
    """Its programs too: whatever would speak to another machine fails."""
    said = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 5)"],
        check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(OFFLINE)},
    )  # fmt: skip
    assert "A notebook may not speak to '192.0.2.1'" in said.stderr


def test_there_are_five() -> None:
    """In the order in which one reads them."""
    assert ["01", "02", "03", "04", "05"] == [name[:2] for name in NAMES]
