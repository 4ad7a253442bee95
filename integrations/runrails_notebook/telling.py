"""A stop or a refusal in the words of a notebook: which cell or kernel, and which magic allows more."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from runrails.errors import RunrailsError

if TYPE_CHECKING:
    from runrails.errors import FieldValue
    from runrails_notebook.cells import Cell
    from runrails_notebook.kernel import KernelGuard

__all__ = ["retold"]

THIS_CELL, THIS_KERNEL = "this cell", "this kernel"


def retold(error: RunrailsError, kernel: KernelGuard, cell: Cell | None) -> RunrailsError:
    """A copy to show."""
    scope = str(error.fields.get("scope", ""))
    known = _names(kernel, cell)
    whose = known.get(scope, scope)
    what = error.what
    for name, said in known.items():
        what = what.replace(name, said)
    fields: dict[str, FieldValue] = {**error.fields, "scope": whose} if scope else dict(error.fields)
    step = _next_step(error, whose, cell)
    if step is not None:
        fields.pop("setting", None)
    # As `again`: whatever class it is, it is made of these alone.
    copy = type(error).__new__(type(error))
    RunrailsError.__init__(copy, _upper(what), next_step=step or error.next_step, **fields)
    return copy


def _names(kernel: KernelGuard, cell: Cell | None) -> dict[str, str]:
    names: dict[str, str] = {}
    if kernel.run is not None:
        names[f"run:{kernel.run.id}"] = THIS_KERNEL
    if kernel.rest.run_id is not None:
        names[f"run:{kernel.rest.run_id}"] = "what goes on outside of cells"
    if cell is not None and cell.run_id is not None:
        names[f"run:{cell.run_id}"] = THIS_CELL
    return names


def _next_step(error: RunrailsError, whose: str, cell: Cell | None) -> str | None:
    match error.code:
        case "budget_exceeded" | "call_too_large" | "scope_exhausted" | "budget_busy":
            return _money(error, whose, cell)
        case "limit_reached" if whose == THIS_CELL and error.fields.get("setting") == "steps":
            return (
                "If the cell is healthy, begin it with a higher `%%guarded --steps`, or allow every cell more with "
                "`%guardrails --steps`."
            )
        case "loop_detected":
            tool = shlex.quote(str(error.fields.get("tool")))
            return (
                f"If this is meant, say `%guardrails --poll {tool}` and run the cell again; without the loop detector, "
                "`%guardrails --loops off`. The next cell may call it anew."
            )
        case "price_unknown":
            model = shlex.quote(f"{error.fields.get('model') or 'MODEL'}=IN/OUT")
            return (
                f"Say what it costs, in dollars per million tokens: `%guardrails --price {model}`, "
                "or write it into runrails.toml."
            )
        case _:
            return None


def _money(error: RunrailsError, whose: str, cell: Cell | None) -> str | None:
    if error.code == "budget_busy":
        return None
    less = "" if error.code != "call_too_large" else "Set a smaller max_tokens, send less, or allow more: "
    if whose == THIS_KERNEL:
        option = "`%guardrails --budget AMOUNT` lets the kernel go on; what it has spent stays counted."
    elif whose == THIS_CELL:
        own = cell is not None and cell.wish.run is not None
        option = (
            f"begin the cell with a higher `%%guarded --run`{'' if own else ' or say `%guardrails --cell AMOUNT`'}."
        )
    elif whose.startswith("user:"):
        option = (
            "`%guardrails --month AMOUNT` raises it. What an operator has set with `runrails budget set` wins over it."
        )
    else:
        return None
    return f"{less}{option}" if less else f"If that is not enough: {option}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
