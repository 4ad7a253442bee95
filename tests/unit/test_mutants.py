"""Every check is played without: the table of `mutate_checks.py` leaves out no module, and no kind of check."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from rr_mutants import edits, outside_of_functions, played
from rr_mutants_chosen import CHOSEN
from rr_mutants_table import EQUIVALENT, ROOMS, TABLE

TOP = Path(__file__).parents[2]


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((TOP / module).read_text(encoding="utf-8"))


def _names(module: str) -> set[str]:
    return {each.name for each in edits(_tree(module))}


def _made(source: str) -> list[str]:
    """What becomes of a module, mutant by mutant."""
    tree = ast.parse(source)
    found: list[str] = []
    for each in edits(tree):
        with played(each.edit):
            found.append(ast.unparse(tree).split("\n", 1)[1].strip())
    assert ast.unparse(ast.parse(source)) == ast.unparse(tree)
    return found


def test_every_module_of_security_with_a_check_is_in_the_table() -> None:
    """A new module of these rooms has to say which tests miss its checks."""
    modules = {str(path.relative_to(TOP)) for room in ROOMS for path in TOP.glob(room)}
    assert [] == sorted(module for module in modules if module not in TABLE and _names(module))
    assert [] == sorted(set(TABLE) - modules)


def test_every_test_of_the_table_is_there() -> None:
    """A file that is renamed would leave its modules without tests."""
    named = {test for tests in TABLE.values() for test in tests}
    assert [] == sorted(test for test in named if not (TOP / test).is_file())


def test_what_somebody_chose_is_still_there() -> None:
    """A chosen change whose text is gone would be played no more: write it anew."""
    texts = {module: (TOP / module).read_text(encoding="utf-8") for module in CHOSEN}
    gone = [
        f"{module}: {name}"
        for module, chosen in CHOSEN.items()
        for name, changes in chosen.items()
        if not all(old in texts[module] for old, _ in changes)
    ]
    assert [] == gone
    assert [] == sorted(set(CHOSEN) - set(TABLE))


def test_what_is_said_to_change_nothing_is_still_there() -> None:
    """A reason outlives no change of what it is about."""
    gone = [
        f"{module}: {name}"
        for module, reasons in EQUIVALENT.items()
        for name in reasons
        if name not in _names(module) | {f"chosen: {chosen}" for chosen in CHOSEN.get(module, ())}
    ]
    assert [] == gone


@pytest.mark.parametrize(
    ("check", "without"),
    [
        ("if a:\n  raise E", ["if False:\n        raise E"]),
        ("if a:\n  return None", ["if False:\n        return None"]),
        ("if a:\n  return f(x)", []),
        ("if a:\n  return x\n raise E", ["if True:\n        return x\n    raise E"]),
        ("if a:\n  pass\n else:\n  raise E", ["if True:\n        pass\n    else:\n        raise E"]),
        ("return x if a else None", ["return x if True else None"]),
        ("return a and b()", ["return True and b()", "return a and True"]),
        ("return not (a and b)", ["return not (True and b)", "return not (a and True)"]),
        ("return a and a.b", []),
        ("return a() or not b", ["return False or not b", "return a() or False"]),
        ("return a or b", []),
        ("return a < b <= c", ["return a <= b <= c", "return a < b < c"]),
        ("return compare_digest(a, b)", ["return True"]),
        ("check_it(a)", ["None"]),
        ("return check_it(a, b)", ["return a"]),
        ("return [a for a in b if c]", ["return [a for a in b if True]"]),
        ("try:\n  a\n except E:\n  raise F", ["try:\n        a\n    except ():\n        raise F"]),
    ],
    ids=str,
)
def test_each_kind_of_check_is_taken_out(check: str, without: list[str]) -> None:
    """One edit at a time, and the tree is as before afterwards."""
    assert without == _made(f"def f():\n {check}")


def test_parts_of_a_refusal_are_taken_out_one_by_one() -> None:
    """Each word of an `or` is a check of its own, also one that is no comparison."""
    expected = ["if False:", "if False or b:", "if a or False:"]
    assert expected == [each.split("\n")[0] for each in _made("def f():\n if a or b:\n  raise E")]


def test_mutants_that_read_alike_have_names_of_their_own() -> None:
    """Otherwise one of them would be taken for the other, and never played."""
    names = [each.name for each in edits(ast.parse("def f():\n if a:\n  raise E\n if a:\n  raise E"))]
    assert ["f: if a", "f: if a #2"] == names


def test_what_is_not_of_functions_is_known() -> None:
    """A constant cannot be changed in what others have imported: such a change is played anew."""
    of = [
        outside_of_functions(ast.parse(text))
        for text in ("A = 1\ndef f(): a", "A = 1\ndef f(): b", "A = 2\ndef f(): a")
    ]
    assert of[0] == of[1]
    assert of[0] != of[2]
