"""One line of a file made into a recorded run, or refused with the reason and the fix."""

from __future__ import annotations

import json
from typing import NoReturn

from runrails.audit.checks import Invalid, Json, entries, kind_of, mapping, required_text
from runrails.audit.messages import steps_of_messages
from runrails.audit.recording import Recording
from runrails.audit.steps import steps_of_steps

__all__ = ["parse_line"]

_ID_FIX = 'Give every run its own "id", a text or a whole number.'
_FORM_FIX = 'Write {"id": …, "messages": […]} with OpenAI chat messages, or {"id": …, "steps": […]}.'


def parse_line(text: str) -> Recording:
    """
    Read one line. Keys that are not of the format are ignored.

    Raises:
        Invalid: The line is no recorded run in one of the two forms; says what is wrong and how to write it.
    """
    record = mapping(_decode(text), "a line", _FORM_FIX)
    run_id = _run_id(record)
    poll_tools = frozenset(
        required_text(name, f"poll_tools[{place}]", "List the names of tools.")
        for place, name in enumerate(entries(record.get("poll_tools"), "poll_tools", "List the names of tools."))
    )
    if (record.get("messages") is None) == (record.get("steps") is None):
        both = "both" if record.get("steps") is not None else "neither"
        raise Invalid(f'The line has {both} of "messages" and "steps".', _FORM_FIX)
    steps = steps_of_messages if record.get("messages") is not None else steps_of_steps
    return Recording(id=run_id, steps=tuple(steps(record)), poll_tools=poll_tools)


def _run_id(record: Json) -> str | int:
    run_id = record.get("id")
    if type(run_id) is int or (isinstance(run_id, str) and run_id):
        return run_id
    found = "missing" if run_id is None else "empty" if run_id == "" else kind_of(run_id)
    raise Invalid(f'The "id" must be a text or a whole number, but it is {found}.', _ID_FIX)


def _decode(text: str) -> object:
    try:
        decoded: object = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        raise Invalid(
            f"Not valid JSON: {exc.msg} at column {exc.colno}.", "Write one JSON object a line, without line breaks."
        ) from None
    except RecursionError:
        raise Invalid("The JSON is nested too deeply.", "Store deep values as text.") from None
    except ValueError as exc:
        if isinstance(exc, Invalid):
            raise
        # Python refuses to read whole numbers of thousands of digits, because that takes quadratic time.
        raise Invalid("A number has too many digits.", "Store such numbers as text.") from None
    return decoded


def _refuse_constant(name: str) -> NoReturn:
    raise Invalid(f"{name} is not JSON.", "Write null or a text in its place.")
