"""
Takes each check out of a module in turn, and sees a test fail.

    python tests/mutate_checks.py guardrails/runrails/egress_rules.py -- tests/attacks/test_egress_attacks.py

A check is an `if` that ends in a refusal: it is taken out whole, and each part of its `or` by itself; or a call that
only looks and refuses (`_check_…`, `check_…`). The module is changed in a copy; nothing here is touched. A check that
can go without a test failing is printed, and the exit code is 1.
"""

from __future__ import annotations

import ast
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=60", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
REFUSES = {"_refuse", "_refuse_file"}


def refuses(body: list[ast.stmt]) -> bool:
    """Whether a block ends by refusing: it raises, calls what raises, says no or says what is wrong."""
    last = body[-1]
    if isinstance(last, ast.Return):
        value = last.value
        said = isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))
        return said or (isinstance(value, ast.Constant) and value.value in {None, False})
    called = last.value if isinstance(last, ast.Expr) else None
    named = isinstance(called, ast.Call) and isinstance(called.func, ast.Name) and called.func.id in REFUSES
    return isinstance(last, ast.Raise) or named


def looks(node: ast.stmt) -> bool:
    """Whether a statement is a call that only looks and refuses."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    called = node.value.func
    name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
    return name.lstrip("_").startswith(("check_", "verify"))


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """What was taken out, and the module without it."""
    tree = ast.parse(source)
    for at, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.If) and refuses(node.body):
            parts = node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or) else []
            for part in [None, *range(len(parts))]:
                changed = copy.deepcopy(tree)
                found = next(other for index, other in enumerate(ast.walk(changed)) if index == at)
                assert isinstance(found, ast.If)
                if part is None:
                    what, found.test = ast.unparse(node.test), ast.Constant(False)
                else:
                    assert isinstance(found.test, ast.BoolOp)
                    what, found.test.values[part] = f"… or {ast.unparse(parts[part])}", ast.Constant(False)
                yield f"{node.lineno}: if {what}", ast.unparse(changed)
        elif isinstance(node, ast.stmt) and looks(node):
            changed = copy.deepcopy(tree)
            found = next(other for index, other in enumerate(ast.walk(changed)) if index == at)
            assert isinstance(found, ast.Expr)
            found.value = ast.Constant(None)
            yield f"{node.lineno}: {ast.unparse(node)}", ast.unparse(changed)


def fails(directory: str, tests: list[str]) -> bool:
    """Whether a test fails with the packages of that directory. In a fork, which has all else in its memory already."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with Path(os.devnull).open("w", encoding="utf-8") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            sys.dont_write_bytecode = True
            sys.path.insert(0, directory)
            code = int(pytest.main([*OPTIONS, *tests]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def main(arguments: list[str]) -> int:
    """Play every mutant of the modules before `--` against the tests behind it."""
    split = arguments.index("--")
    modules, tests = arguments[:split], arguments[split + 1 :]
    alive: list[str] = []
    count = 0
    os.chdir(TOP)
    for plugin in entry_points(group="pytest11"):
        plugin.load()  # once here, and not in every fork
    for module in ("cryptography.hazmat.primitives.asymmetric.ec", "http.client", "ssl", "structlog", "jwt"):
        import_module(module)
    with tempfile.TemporaryDirectory() as directory:
        for root in ("guardrails", "integrations"):
            for package in (TOP / root).iterdir():
                if package.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(package, Path(directory) / package.name, ignore=ignored)
        for module in modules:
            source = (TOP / module).read_text(encoding="utf-8")
            place = Path(directory, *Path(module).parts[1:])
            for what, changed in [("nothing", source), *mutants(source)]:
                place.write_text(changed, encoding="utf-8")
                count += 1
                if fails(directory, tests) is (what == "nothing"):
                    alive.append(f"{module}:{what}")
                    print("NOT SEEN", alive[-1], flush=True)
            place.write_text(source, encoding="utf-8")
    print(f"{count} played, {len(alive)} not seen", flush=True)
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
