"""The command line as Markdown. Knows no Sphinx, so that tests can read it as well."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runrails.cli.root import build

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["commands", "pages_of_commands"]

_EXAMPLE = "Example: "
_KINDS: dict[object, str] = {int: "NUMBER", float: "NUMBER", Path: "PATH"}


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group with the words that lead to it, in the order of `--help`."""
    yield from _below((), build())


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if words:
        yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _below((*words, name), child)


def pages_of_commands() -> str:
    """A section for each command."""
    return "\n".join(_section(words, command) for words, command in commands())


def _section(words: tuple[str, ...], command: Any) -> str:
    title = " ".join(("runrails", *words))
    parts = [f"{'#' * min(len(words) + 1, 4)} `{title}`", _prose(command.help or "")]
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    if not getattr(command, "commands", None) or getattr(command, "invoke_without_command", False):
        usage = " ".join([title, "[OPTIONS]", *(_usage(each) for each in arguments)])
        parts.append(f"```text\n{usage}\n```")
    if arguments:
        parts.append(_table("argument", [(f"`{_name(each)}`", _help(each)) for each in arguments]))
    if options:
        parts.append(_table("option", [(_option(each), _help(each)) for each in options]))
    if "Exit codes" not in (command.help or "") and command.epilog and not getattr(command, "commands", None):
        parts.append(_prose(command.epilog))
    return "\n\n".join(parts) + "\n"


def _usage(argument: Any) -> str:
    name = _name(argument)
    name += "..." if argument.nargs != 1 and not name.endswith("...") else ""
    return name if argument.required else f"[{name}]"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]{}")


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    kind = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"{names} {_escaped(' / '.join(str(choice.value) for choice in kind))}"
    shown = option.metavar or _KINDS.get(kind, "TEXT")
    return f"{names} {_escaped(shown)}"


def _help(param: Any) -> str:
    text = _cell(getattr(param, "help", None) or "")
    default = getattr(param, "default", None)
    if default not in (None, False, (), []) and not callable(default) and param.param_type_name == "option":
        text += f" Default: `{getattr(default, 'value', default)}`."
    return text.strip()


def _table(what: str, rows: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {what} | |", "|---|---|", *(f"| {left} | {right} |" for left, right in rows)])


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _prose(text: str) -> str:
    """Help is plain text: what Markdown takes for something else is escaped, indented lines are shown as they are."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text).replace("\f", ""))
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    if text.startswith(_EXAMPLE):
        return f"Example:\n\n```text\n{text.removeprefix(_EXAMPLE)}\n```"
    return f"```text\n{text.strip()}\n```" if text.startswith((" ", "\b")) else _escaped(text)


def _escaped(text: str) -> str:
    """Names in backticks are code in help as well."""
    pieces = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        each if number % 2 else re.sub(r"([*_<>\[\]`$#])", r"\\\1", each) for number, each in enumerate(pieces)
    )
