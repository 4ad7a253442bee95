"""
Modules with one security check taken out.

A mutant is one small edit of a module's syntax tree:

- an `if` that refuses lets all through, also each part of its `or` by itself; so does an `if` behind which all is
  refused, a conditional expression that gives nothing, and the condition of a comprehension;
- a part of an `and` is always true, a part of an `or` of comparisons never;
- `<` and `<=`, `>` and `>=` change places;
- `compare_digest` says yes;
- a call that only looks and refuses (`check_…`, `verify…`) is left out;
- an `except` that refuses catches nothing.
"""

from __future__ import annotations

import ast
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Edit", "Mutant", "edits", "outside_of_functions", "played"]

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_SIGNS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_REFUSERS = ("refuse", "fail", "deny", "reject")
_LOOKERS = ("check_", "verify", "require", "refuse")


class Edit(NamedTuple):
    """One change of a tree, as yet undone."""

    where: str
    """The function it is in, by its qualified name."""
    what: str
    first: int
    last: int
    """The lines of which one is run by whoever could notice."""
    owner: ast.AST
    field: str
    index: int | None
    new: ast.AST


class Mutant(NamedTuple):
    """An edit that has a name of its own within its module."""

    name: str
    edit: Edit


@contextmanager
def played(edit: Edit) -> Iterator[None]:
    """The tree is changed within."""
    holder = getattr(edit.owner, edit.field)
    before = holder if edit.index is None else holder[edit.index]
    new = ast.fix_missing_locations(ast.copy_location(edit.new, before))
    try:
        if edit.index is None:
            setattr(edit.owner, edit.field, new)
        else:
            holder[edit.index] = new
        yield
    finally:
        if edit.index is None:
            setattr(edit.owner, edit.field, before)
        else:
            holder[edit.index] = before


def edits(tree: ast.Module) -> list[Mutant]:
    """Every mutant of a module; two of one function that read alike are numbered."""
    found = [edit for where, function in _functions(tree, "") for edit in _of_function(where, function)]
    seen: Counter[str] = Counter()
    named: list[Mutant] = []
    for edit in found:
        name = f"{edit.where}: {edit.what}"
        seen[name] += 1
        named.append(Mutant(name if seen[name] == 1 else f"{name} #{seen[name]}", edit))
    return named


def outside_of_functions(tree: ast.Module) -> str:
    """The module's form without what its functions do; what differs there cannot be changed in a running program."""
    bodies: list[tuple[Function, list[ast.stmt]]] = []
    for _, function in _functions(tree, ""):
        bodies.append((function, function.body))
        function.body = []
    try:
        return ast.dump(tree)
    finally:
        for function, body in bodies:
            function.body = body


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    """The outermost functions, and methods."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif not isinstance(child, ast.expr):
            yield from _functions(child, prefix)


def _of_function(where: str, function: Function) -> Iterator[Edit]:
    for statement in function.body:
        yield from _visit(where, statement, statement, decides=False)
    yield from _blocks(where, function)


def _visit(where: str, node: ast.AST, near: ast.stmt, *, decides: bool) -> Iterator[Edit]:
    """
    The edits of a node and of all below it.

    Args:
        where: The function.
        node: The node.
        near: The statement whose being run means that it was seen.
        decides: Whether only the node's truth counts; `a and a.b` is else a value, and no check.
    """
    if isinstance(node, ast.stmt):
        near = node
        yield from _blocks(where, node)
    first, last = _head(near)

    def edit(what: str, owner: ast.AST, field: str, new: ast.AST, index: int | None = None) -> Edit:
        return Edit(where, what, first, last, owner, field, index, new)

    if isinstance(node, ast.BoolOp) and _is_condition(node, decides=decides):
        word, neutral = ("and", True) if isinstance(node.op, ast.And) else ("or", False)
        for index, part in enumerate(node.values):
            yield edit(f"{word} {ast.unparse(part)}", node, "values", ast.Constant(neutral), index)
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = _BOUNDARIES.get(type(operator))
            if other is not None:
                what = f"{_SIGNS[other]} for {_SIGNS[type(operator)]} in {ast.unparse(node)}"
                yield edit(what, node, "ops", other(), index)
    elif isinstance(node, ast.IfExp) and (_is_nothing(node.body) or _is_nothing(node.orelse)):
        new = ast.Constant(not _is_nothing(node.body))
        yield edit(f"{ast.unparse(node.test)} ? {ast.unparse(node.body)}", node, "test", new)
    elif isinstance(node, ast.comprehension):
        for index, part in enumerate(node.ifs):
            yield edit(f"for … if {ast.unparse(part)}", node, "ifs", ast.Constant(value=True), index)
    elif isinstance(node, ast.ExceptHandler) and _refuses(node.body):
        what = f"except {ast.unparse(node.type) if node.type else ''}"
        yield Edit(
            where, what, node.lineno, node.body[-1].end_lineno or 0, node, "type", None, ast.Tuple([], ast.Load())
        )
    yield from _calls(where, node, first, last)
    for child in ast.iter_child_nodes(node):
        yield from _visit(
            where, child, near, decides=_decides(node, child) or (decides and isinstance(node, ast.BoolOp))
        )


def _calls(where: str, node: ast.AST, first: int, last: int) -> Iterator[Edit]:
    """Calls below this node that say yes, or give what they were given."""
    for field, value in ast.iter_fields(node):
        held: list[object] = value if isinstance(value, list) else [value]
        for at, each in enumerate(held):
            index = at if isinstance(value, list) else None
            if isinstance(each, ast.Call) and _called(each) == "compare_digest":
                yield Edit(where, "compare_digest", first, last, node, field, index, ast.Constant(value=True))
            elif isinstance(each, ast.Call) and each.args and _looks(each, "check_") and not isinstance(node, ast.Expr):
                what = f"{ast.unparse(each)} as it is"
                yield Edit(where, what, first, last, node, field, index, each.args[0])


def _blocks(where: str, node: ast.AST) -> Iterator[Edit]:
    """The edits of the statements in a statement's blocks: whether an `if` refuses also depends on what follows it."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, [])
        for index, each in enumerate(block if isinstance(block, list) else []):
            if isinstance(each, ast.If):
                yield from _of_if(where, each, block[index + 1 :])
            elif isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) and _looks(each.value, *_LOOKERS):
                yield Edit(where, ast.unparse(each), *_head(each), each, "value", None, ast.Constant(None))
        for each in getattr(node, "handlers", []) if field == "body" else []:
            yield from _blocks(where, each)


def _of_if(where: str, node: ast.If, after: list[ast.stmt]) -> Iterator[Edit]:
    first, last = _head(node)
    test = ast.unparse(node.test)
    if _refuses(node.body):
        yield Edit(where, f"if {test}", first, last, node, "test", None, ast.Constant(value=False))
        if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.Or):
            for index, part in enumerate(node.test.values):
                if not all(map(_is_test, node.test.values)):  # else they are there as parts of any `or`
                    what = f"or {ast.unparse(part)}"
                    yield Edit(where, what, first, last, node.test, "values", index, ast.Constant(value=False))
    elif (node.orelse and _refuses(node.orelse)) or (
        not node.orelse and isinstance(node.body[-1], ast.Return) and after and _refuses(after[:1])
    ):
        yield Edit(where, f"if {test}: yes", first, last, node, "test", None, ast.Constant(value=True))


def _refuses(body: list[ast.stmt]) -> bool:
    """Whether a block ends by refusing: it raises, calls what raises, says no, passes over or says what is wrong."""
    last = body[-1]
    if isinstance(last, ast.Return):
        return last.value is None or _is_nothing(last.value) or _is_text(last.value)
    called = last.value if isinstance(last, ast.Expr) else None
    named = isinstance(called, ast.Call) and _called(called).lstrip("_").startswith(_REFUSERS)
    return isinstance(last, ast.Raise | ast.Continue) or named


def _is_nothing(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and (value.value is None or value.value is False)


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _decides(node: ast.AST, child: ast.AST) -> bool:
    """Whether a node asks of that child only whether it is true."""
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        return child is node.test
    return isinstance(node, ast.UnaryOp) or (isinstance(node, ast.comprehension) and child in node.ifs)


def _is_condition(node: ast.BoolOp, *, decides: bool) -> bool:
    if isinstance(node.op, ast.And):
        return decides or _is_test(node.values[-1])
    return all(map(_is_test, node.values))


def _is_test(value: ast.expr) -> bool:
    negated = isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    return negated or isinstance(value, ast.Compare | ast.BoolOp | ast.Call)


def _looks(call: ast.Call, *beginnings: str) -> bool:
    return _called(call).lstrip("_").startswith(beginnings)


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _head(node: ast.stmt) -> tuple[int, int]:
    """The lines of a statement without its blocks."""
    block = cast("list[ast.stmt] | None", getattr(node, "body", None))
    last = block[0].lineno - 1 if block else node.end_lineno or node.lineno
    return node.lineno, max(node.lineno, last)
