"""What `import runrails` gives and what it loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runrails

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted([*ROOT.glob("guardrails/**/*.py"), *ROOT.glob("integrations/**/*.py")])


def test_every_public_name_exists_and_the_list_is_sorted() -> None:
    """`__all__` promises nothing that is not there."""
    assert sorted(runrails.__all__) == list(runrails.__all__)
    for name in runrails.__all__:
        assert getattr(runrails, name).__name__ == name
    assert runrails.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = runrails.no_such_name


@pytest.mark.parametrize(
    "heavy",
    ["pydantic", "structlog", "tenacity", "asyncio", "typer", "rich", "langchain_core", "openai", "boto3", "sqlite3"],
)
def test_the_door_loads_nothing_heavy(heavy: str) -> None:
    """`from runrails import Guard, Limits` stays quick: no vendor, none of the edge libraries."""
    code = f"import sys; from runrails import Guard, Limits; sys.exit({heavy!r} in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_nothing_of_ours_imports_guardrails_or_integrations() -> None:
    """Those names belong to other distributions; from this directory they would be empty namespace packages."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] in ("guardrails", "integrations")], path


def test_files_and_functions_stay_small() -> None:
    """No file over 500 lines, no function body over 70."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                assert length <= 70, f"{path}:{node.lineno} {node.name}: {length} lines"
