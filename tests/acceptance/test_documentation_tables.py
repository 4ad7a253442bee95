"""What the documentation's tables say is what the code says: limits, settings, errors, tests, facts."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rr_docs import PAGES, TOP, Row, checked_tables, code, read
from runrails.autoguard.variables import VARIABLES
from runrails.errors import RunrailsError

TABLES = list(checked_tables())
CLASSES = sorted({what for what, _ in TABLES if what.rpartition(".")[2][:1].isupper()})
"""Those that are checked against a class."""
REQUIRED = object()
PACKAGES = (
    "runrails", "runrails_langchain", "runrails_openai", "runrails_anthropic", "runrails_aws",
    "runrails_openai_agents", "runrails_pydantic_ai", "runrails_gateway", "runrails_notebook",
)  # fmt: skip


def rows_of(what: str) -> list[Row]:
    """All rows of the tables that are checked against this."""
    return [row for checked, rows in TABLES if checked == what for row in rows]


def defaults_of(kind: type) -> Mapping[str, object]:
    """Every argument of a class, with its default."""
    if dataclasses.is_dataclass(kind):
        return {field.name: _default(field) for field in dataclasses.fields(kind) if field.init}
    parameters = list(inspect.signature(kind).parameters.values())
    return {each.name: REQUIRED if each.default is each.empty else each.default for each in parameters}


def _default(field: dataclasses.Field[object]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def is_written(cell: str, default: object) -> bool:
    """Whether a cell says this default: a literal, `Name()` of a value of our own, or a function's name."""
    if default is REQUIRED:
        return cell == "required"
    text = code(cell)
    if inspect.isfunction(default):
        return text == default.__name__
    if text.endswith("()") and text != "()":
        return text == f"{type(default).__name__}()" and default == type(default)()
    return bool(ast.literal_eval(text) == default)


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_and_defaults(name: str) -> None:
    """Each argument is there once, in its order, with its default; nothing else is."""
    module, _, kind = name.rpartition(".")
    expected = defaults_of(getattr(importlib.import_module(module), kind))
    rows = rows_of(name)

    assert list(expected) == [code(row.cells[0]) for row in rows]
    assert [] == [row for row in rows if not is_written(row.cells[1], expected[code(row.cells[0])])]


def test_every_class_of_settings_has_a_table() -> None:
    """What is configured by hand is written down, whichever class it is."""
    core = ["Guard", "Limits", "LoopPolicy", "ToolRule", "Rates", "Lease", "ResponseCache", "Downgrade", "Pruning"]
    gateway = ("GatewayConfig", "Limited", "Upstream")
    expected = {f"runrails.{name}" for name in core} | {f"runrails_gateway.{name}" for name in gateway}
    assert expected == set(CLASSES)


def test_every_variable_of_the_environment() -> None:
    """Each name that stands in the code is in one table, and no other is."""
    texts = [path.read_text(encoding="utf-8") for root in ("guardrails", "integrations") for path in rooms(root)]
    whole = {name for text in texts for name in re.findall(r"\bRUNRAILS_[A-Z0-9]+(?:_[A-Z0-9]+)*\b", text)}
    ends = {end for text in texts for end in re.findall(r"\{[A-Z_]+\}(_[A-Z_]+)\"", text)}  # f"{CACHE}_SECONDS"
    written = [code(row.cells[0]) for row in rows_of("environment")]

    assert len(written) == len(set(written))
    assert sorted(whole - set(written)) == []
    assert sorted(set(written) - whole - {f"{name}{end}" for name in whole for end in ends}) == []


def test_variables_that_pages_name_exist() -> None:
    """A setting in a sentence is one in a table. The changelog may name what was."""
    known = {code(row.cells[0]) for row in rows_of("environment")} | {"RUNRAILS_BUDGET"}  # which is shown as a mistake
    named = {
        (page, name)
        for page in PAGES
        for name in re.findall(r"\bRUNRAILS_[A-Z0-9]+(?:_[A-Z0-9]+)*\b", read(page))
        if name not in known and not name.startswith("RUNRAILS_DDB")
    }
    assert [] == sorted(named)


def rooms(root: str) -> list[Path]:
    """Every file of code below a source root."""
    return sorted((TOP / root).rglob("*.py"))


def test_variables_name_their_options() -> None:
    """The option beside a variable of `runrails run` is the one that sets it."""
    expected = {each.name: each.option for each in VARIABLES}
    said = {code(row.cells[0]): code(row.cells[1]) for row in rows_of("environment") if len(row.cells) == 3}
    assert expected == {name: said[name] for name in expected}


@pytest.mark.parametrize("magic", ["guardrails", "guarded"])
def test_options_of_the_magics(magic: str) -> None:
    """Every option of a magic of notebooks is in its table, and no other."""
    from runrails_notebook import options

    parser = getattr(options, f"_{magic}")()
    expected = {name for action in parser._actions for name in action.option_strings}
    assert expected == {name for row in rows_of(magic) for name in re.findall(r"(--[a-z]+)", row.cells[0])}


def test_keys_of_the_project_file() -> None:
    """Every key of `runrails.toml`'s settings is in its table."""
    from runrails import projectfile

    expected = [*projectfile.LIMIT_KEYS, *projectfile.RATE_KEYS, *projectfile.LOOP_KEYS, "url"]
    rows = rows_of("runrails.toml")
    assert sorted(expected) == sorted(key for row in rows for key in re.findall(r"`(\w+)`", row.cells[1]))
    tables = {name for row in rows for name in re.findall(r"`\[([\w.]+)\]`", row.cells[0])}
    assert {"limits", "loops", "store"} | {f"limits.{name}" for name in projectfile.RATE_TABLES} == tables


def test_exit_codes() -> None:
    """The codes of the table are those that help tells of, and that of a stopped program."""
    from runrails.autoguard.plan import STOP_CODE
    from runrails.cli.output import EXIT_CODES

    expected = {int(number) for number in re.findall(r"(?:^|[:;] )(\d+) ", EXIT_CODES)} | {STOP_CODE}
    assert expected == {int(row.cells[0]) for row in rows_of("exit codes")}


def every_error() -> dict[str, type[RunrailsError]]:
    """All public classes of errors, wherever they are made."""
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not module.name.endswith(("__main__", "sitecustomize")):
                importlib.import_module(module.name)
    found, waiting = dict[str, type[RunrailsError]](), [RunrailsError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.split(".")[0] in PACKAGES and not kind.__name__.startswith("_"):
            found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


def test_every_error_is_in_the_catalogue() -> None:
    """With its code, a cause and a fix, once."""
    # An adapter may make classes of its own at run time, with the name and the code of the one it stands for.
    errors = every_error()
    rows = rows_of("errors")
    written = {code(row.cells[0]): code(row.cells[1]) for row in rows}

    assert len(rows) == len(written)
    assert {name: kind.code for name, kind in errors.items()} == written
    assert [] == [row for row in rows if not row.cells[2]]


def test_every_event() -> None:
    """What is emitted by its name is listed, and what is listed stands in the code."""
    texts = [path.read_text(encoding="utf-8") for root in ("guardrails", "integrations") for path in rooms(root)]
    named = {name for text in texts for name in re.findall(r"(?:emit|outbox\.add)\(\s*\"([a-z]+(?:_[a-z]+)+)\"", text)}
    written = [code(row.cells[0]) for row in rows_of("events")]

    assert len(written) == len(set(written))
    assert [] == sorted(named - set(written))
    assert [] == [name for name in written if not any(f'"{name}"' in text for text in texts)]


@pytest.mark.parametrize(
    "module",
    [
        *(name for name in PACKAGES), "runrails.testing", "runrails.notify", "runrails.credentials",
        "runrails_aws.identity", "runrails_aws.dynamodb",
    ],
)  # fmt: skip
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """The pages of the API are made from docstrings, name by name; none is forgotten, none is left over."""
    text = "\n".join(read(page) for page in PAGES if page.startswith("docs/api/"))
    there = set(re.findall(rf"^\.\. auto\w+:: {module}\.(\w+)$", text, flags=re.MULTILINE))
    assert set(importlib.import_module(module).__all__) == there


def test_every_threat_names_tests_that_exist() -> None:
    """Whoever reads the table of threats can look at what shows each line."""
    known = {
        name
        for path in (TOP / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    rows = rows_of("tests")
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row.cells[2])]

    assert len(rows) >= 20
    assert [] == [row for row in rows if not re.search(r"`test_\w+`", row.cells[2])]
    assert [] == [name for name in named if name not in known and not (TOP / name).is_file()]


def _recursion() -> tuple[int, int]:
    from langchain.agents import create_agent
    from langgraph._internal._config import DEFAULT_RECURSION_LIMIT

    from runrails.testing import ScriptedChatModel

    config = create_agent(ScriptedChatModel("Hello."), tools=[]).config
    return DEFAULT_RECURSION_LIMIT, (config or {})["recursion_limit"]


def _turns() -> int:
    from agents import Runner

    return int(inspect.signature(Runner.run).parameters["max_turns"].default)


def _usage_limits() -> Mapping[str, object]:
    from pydantic_ai.usage import UsageLimits

    return {name: each.default for name, each in inspect.signature(UsageLimits).parameters.items()}


def _call_limits() -> set[str]:
    from langchain.agents.middleware import ModelCallLimitMiddleware

    return set(inspect.signature(ModelCallLimitMiddleware).parameters)


FACTS: Mapping[str, Callable[[], bool]] = {
    "10,007 supersteps": lambda: _recursion()[0] == 10_007,
    "sets 9,999": lambda: _recursion()[1] == 9_999,
    "is 10 by default": lambda: _turns() == 10,
    "requests (50 by default)": lambda: _usage_limits()["request_limit"] == 50,
    "`cost_limit` in dollars": lambda: "cost_limit" in _usage_limits(),
    "`thread_limit`, `run_limit`, `exit_behavior`": lambda: (
        _call_limits() == {"thread_limit", "run_limit", "exit_behavior"}
    ),
}
"""What the comparison says of others that an installed package can show."""


@pytest.mark.parametrize("fact", sorted(FACTS))
def test_facts_about_others(fact: str) -> None:
    """It stands there, and it is so in what is installed."""
    assert fact in re.sub(r"\s+", " ", read("docs/comparison.md"))
    assert FACTS[fact]()


def test_versions_and_dates_of_the_comparison_are_told() -> None:
    """A reader can see how old a fact is."""
    text = read("docs/comparison.md")
    assert re.search(r"As of 20\d\d-\d\d-\d\d\.", text)
    assert 15 <= len(set(re.findall(r"\]\((https://[^)]+)\)", text)))
