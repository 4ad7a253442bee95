"""The page of errors is that of the code: every code, with the status and types that callers see."""

from __future__ import annotations

import re

import pytest

from rr_gateway import asked, running, world
from rr_gateway_errors import GATEWAY, Told, every_error
from runrails.errors import RunrailsError
from runrails_gateway.admin import errors as admin_errors

_ROW = re.compile(r"^\| (\d{3}) \| `([a-z_]+)` \| `([a-z_]+)` \| (?:`([a-z_]+)`|the same) \| ([^|]+) \| ([^|]+) \|$")
PAGE = (GATEWAY / "README.md").read_text()
SECTION = PAGE.partition("## Every error\n")[2].partition("\n## ")[0]


def rows() -> dict[str, tuple[Told, str]]:
    """What the page says, by code."""
    found = {}
    for line in SECTION.splitlines():
        row = _ROW.match(line)
        if row is not None:
            status, code, openai, anthropic, again, fix = row.groups()
            assert code not in found
            found[code] = (Told(int(status), openai, anthropic or openai, again.strip()), fix.strip())
    return found


def test_the_page_has_every_code_and_no_other() -> None:
    """With status, both vendors' types and whether it is sent again, as the code has them; and what to do."""
    assert every_error() == {code: row for code, (row, _) in rows().items()}
    assert all(len(fix) > 5 for _, fix in rows().values())


def test_the_page_is_in_order() -> None:
    """By status, then by code: where somebody looks."""
    order = [(row.status, code) for code, (row, _) in rows().items()]
    assert sorted(order) == order


def test_the_admin_apis_own_codes_are_named() -> None:
    """Those that calls of models never get."""
    own = [each for each in vars(admin_errors).values() if isinstance(each, type) and issubclass(each, RunrailsError)]
    codes = [each.code for each in own if each.__module__ == admin_errors.__name__]
    assert 4 == len(codes)
    assert all(f"`{code}`" in SECTION for code in (*codes, "conflict", "unreadable"))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "no such"}, "invalid_model"), ({"n": 0}, "invalid_value"), ({"messages": "x"}, "invalid_type"),
        ({"Model": "x"}, "ambiguous_member"), ({"web_search_options": {}}, "bound_unknown"),
        ({"model": "unpriced"}, "model_unpriced"),
    ],
)  # fmt: skip
async def test_the_page_is_what_callers_see(changes: dict[str, object], code: str) -> None:
    """Samples of it, asked for."""
    with world() as made:
        async with running(made.config) as app:
            caller = asked(made, **changes)
            await app(caller.scope, caller.receive, caller.send)
        error = caller.json()["error"]
        row = rows()[code][0]
        assert (row.status, code, row.openai) == (caller.status, error["code"], error["type"])
        assert "false" == caller.headers["x-should-retry"]
        made.untouched()
