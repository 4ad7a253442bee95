"""
The project's own prices: `runrails.toml`.

    [prices."azure:my-deployment"]
    input = "2.50"          # dollars per million tokens
    output = "10.00"
    tiers.priority = { input = "5", output = "20" }

    [prices]
    "ollama:llama3.1" = "0" # costs nothing, and somebody says so

    [aliases]               # other names: Azure deployments, inference profiles (with the region they run in)
    my-deployment = "azure:gpt-4o"
    "arn:aws:bedrock:eu-west-1:1:application-inference-profile/a1" = "bedrock/eu-west-1/meta.llama3-8b-instruct-v1:0"

    [[contract]]            # what was agreed with a provider; see `runrails.pricing.contract`
    provider = "openai"
    percent = "-12"
    valid_from = 2026-07-01

`runrails.projectfile` reads the tables `limits`, `loops` and `store`. Others are somebody else's and left alone. A
mistake anywhere refuses the whole file, by line and key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NoReturn, cast

from runrails.errors import ConfigError
from runrails.money import usd
from runrails.pricing.contract import Term
from runrails.pricing.spec import PRICE_FIELDS, Price, PriceSpec, check_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["PROJECT_FILE", "ProjectPrices", "ProjectText", "parse_project", "read_file", "read_project"]

PROJECT_FILE = "runrails.toml"
_BYTES_MAX = 1_000_000
_KEY_SHOWN_MAX = 80
_TERMS_MAX = 1_000
_TERM_FIELDS = frozenset({"model", "provider", "price", "percent", "valid_from", "valid_to"})
_NOT_AMOUNTS = frozenset({"context_tokens_max", "output_tokens_max", "tiers"})
_Path = tuple[str, ...]
_PRICE_ADVICE = (
    'Write input = "…" and output = "…" in dollars per million tokens, call = "…" in dollars per call, or "0" in the '
    "place of a price if it costs nothing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPrices:
    """Prices, other names for models and terms of contracts, as the project wrote them."""

    prices: Mapping[str, PriceSpec]
    aliases: Mapping[str, str]
    contract: tuple[Term, ...] = ()


def read_project(path: str | Path) -> ProjectPrices:
    """
    Read the project file.

    Raises:
        ConfigError: It cannot be read, is no TOML, or a price or alias in it is malformed.
    """
    return parse_project(read_file(path), name=str(path))


def read_file(path: str | Path) -> bytes:
    """What a project file holds, one byte more than it may at most. Raises ConfigError."""
    from pathlib import Path

    file = Path(path)
    try:
        with file.open("rb") as stream:
            return stream.read(_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(
            f"The project file {file} cannot be read ({exc.strerror or type(exc).__name__}).",
            next_step="Create it or point to another one.",
        ) from exc


def parse_project(content: bytes, *, name: str = PROJECT_FILE) -> ProjectPrices:
    """
    The prices, aliases and contract in a project file: all of it, or nothing.

    Raises:
        ConfigError: It is no TOML, or something in it is malformed. The message and the fields `line` and `key` tell
            where.
    """
    file = ProjectText(content, name)
    data = file.read()
    prices: dict[str, PriceSpec] = {}
    for model, value in _table(file, data, "prices").items():
        prices[model] = _spec(file, value, model)
    _check_names(file, "prices", prices)
    aliases = {alias: _alias(file, value, alias) for alias, value in _table(file, data, "aliases").items()}
    _check_names(file, "aliases", aliases)
    return ProjectPrices(prices=prices, aliases=aliases, contract=_contract(file, data.get("contract", [])))


class ProjectText:
    """The text of a project file, which knows in what line a key stands."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._name = name
        self._text = ""

    def read(self) -> Mapping[str, object]:
        """The file as TOML. A number such as 2.50 in it is exact as a Decimal, so it need not be quoted."""
        import tomllib

        if len(self._content) > _BYTES_MAX:
            self.refuse(f"is larger than {_BYTES_MAX:,} bytes.", advice="Keep only prices in it.")
        try:
            # Some editors begin a file with a byte order mark, which `utf-8-sig` leaves out.
            self._text = self._content.decode("utf-8-sig").replace("\r\n", "\n")
            return tomllib.loads(self._text, parse_float=Decimal)
        except UnicodeDecodeError as exc:
            line = self._content.count(b"\n", 0, exc.start) + 1
            self.refuse("is not valid TOML: it is not UTF-8.", line=line, advice="Save it as UTF-8.")
        except RecursionError:
            self.refuse("is nested too deeply.", advice="Write prices as flat tables.")
        except (ValueError, InvalidOperation) as exc:
            # TOMLDecodeError is a ValueError, and so is a number of 5,000 digits; 1e9999999999999999999 is the other.
            at = self._line_in(exc)
            key = None if at is None else self._key_in_line(at)
            told = isinstance(exc, tomllib.TOMLDecodeError)
            what = re.sub(r" \(at (line|end).*\)", "", str(exc)) if told else "a number in it is absurd"
            self.refuse(f"is not valid TOML: {what}.", line=at, key=key, advice="Correct that line.")

    def refuse(
        self, what: str, *, advice: str, path: _Path = (), line: int | None = None, key: str | None = None
    ) -> NoReturn:
        """Raise the error, naming file, line and key."""
        if path:
            line = self._line_of(path)
            key = _shown(path)
        where = "" if line is None else f", line {line}"
        at = "" if key is None else f", {key}"
        raise ConfigError(
            f"{self._name}{where}{at}: {what}" if where or at else f"{self._name} {what}",
            next_step=advice, file=self._name, line=line, key=key,
        )  # fmt: skip

    def _line_in(self, error: Exception) -> int | None:
        told = re.search(r"\(at line ([0-9]+), column [0-9]+\)", str(error))
        if told is not None:
            return int(told[1])
        if "(at end of document)" in str(error):
            return max(1, len(self._text.rstrip().split("\n")))
        long = re.search(r"[0-9_]{1000}", self._text) or re.search(r"[eE][+-]?[0-9]{10}", self._text)
        return None if long is None else self._text.count("\n", 0, long.start()) + 1

    def _key_in_line(self, line: int) -> str | None:
        lines = self._text.split("\n")
        text = lines[line - 1].strip() if line <= len(lines) else ""
        key = text if text.startswith("[") else text.partition("=")[0].strip()
        return _printable(key) or None

    def _line_of(self, path: _Path) -> int | None:
        """The line in which this key is written, or else that of its table. Only looked for after a mistake."""
        table: _Path = ()
        counts: dict[_Path, int] = {}
        best: int | None = None
        length = 0
        for number, line in enumerate(self._text.split("\n"), start=1):
            text = line.strip()
            if text.startswith("["):
                found = _keys(text)
                if found is None:
                    continue
                table = found
                if text.startswith("[["):
                    counts[table] = counts.get(table, 0) + 1
                    table = (*table, str(counts[table]))
                here = table
            else:
                found = _keys(text.partition("=")[0] + " = 0") if "=" in text else None
                if found is None:
                    found = _keys(_quoted_key(text) + " = 0")
                if found is None:
                    continue
                here = (*table, *found)
            if len(here) > length and path[: len(here)] == here:
                best = number
                length = len(here)
        return best


def _keys(text: str) -> _Path | None:
    """The path of keys that one line of TOML opens."""
    import tomllib

    try:
        value: object = tomllib.loads(text)
    except (ValueError, RecursionError):
        return None
    path: list[str] = []
    while isinstance(value, dict) and len(cast("dict[str, object]", value)) == 1:
        ((key, value),) = cast("dict[str, object]", value).items()
        path.append(key)
        if isinstance(value, list):
            break
    return tuple(path) or None


def _quoted_key(text: str) -> str:
    quoted = re.match(r"""("(?:[^"\\]|\\.)*"|'[^']*')\s*=""", text)
    return quoted[1] if quoted is not None else ""


def _shown(path: _Path) -> str:
    return _printable(".".join(part if re.fullmatch("[A-Za-z0-9_-]+", part) else f'"{part}"' for part in path))


def _printable(key: str) -> str:
    short = key if len(key) <= _KEY_SHOWN_MAX else key[:_KEY_SHOWN_MAX] + "…"
    return short if short.isprintable() else ascii(short)


def _table(file: ProjectText, data: Mapping[str, object], key: str) -> Mapping[str, object]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        file.refuse("is not a table.", path=(key,), advice=f"Write [{key}] and put its entries below.")
    return cast("Mapping[str, object]", table)


def _check_names(file: ProjectText, table: str, names: Mapping[str, object]) -> None:
    seen: set[str] = set()
    for name in names:
        key = name.strip().lower()
        if not key or key in seen:
            what = "has no model's name." if not key else "is there twice: names differ by more than case and blanks."
            file.refuse(what, path=(table, name), advice="Keep the one that is meant.")
        seen.add(key)


def _spec(file: ProjectText, value: object, model: str) -> PriceSpec:
    path = ("prices", model)
    if isinstance(value, dict):
        return _price(file, cast("Mapping[str, object]", value), path)
    try:
        return check_spec(value, where=repr(model[:_KEY_SHOWN_MAX]))
    except (TypeError, ValueError) as exc:
        file.refuse(f"the price is malformed: {exc}", path=path, advice=_PRICE_ADVICE)


def _price(file: ProjectText, entries: Mapping[str, object], path: _Path) -> Price:
    parts = dict(entries)
    for key, value in entries.items():
        if key not in PRICE_FIELDS:
            file.refuse("is not part of a price.", path=(*path, key), advice=_PRICE_ADVICE)
        if key == "tiers":
            parts[key] = _tiers(file, value, (*path, key))
        elif key not in _NOT_AMOUNTS:
            try:
                usd(cast("str", value), what=key)  # whatever it is, it says so
            except (TypeError, ValueError) as exc:
                file.refuse(str(exc), path=(*path, key), advice=_PRICE_ADVICE)
    # What the file holds is not known here; `Price` checks the types itself.
    build = cast("Callable[..., Price]", Price)
    try:
        return build(**parts)
    except (TypeError, ValueError) as exc:
        said = str(exc).partition(" ")[0]
        file.refuse(str(exc), path=(*path, said) if said in entries else path, advice=_PRICE_ADVICE)


def _tiers(file: ProjectText, value: object, path: _Path) -> Mapping[str, Price]:
    tiers: dict[str, Price] = {}
    if not isinstance(value, dict):
        file.refuse("is not a table of prices.", path=path, advice="Write tiers.priority = { input = …, output = … }.")
    for name, entries in cast("Mapping[str, object]", value).items():
        if not isinstance(entries, dict):
            file.refuse("is no price.", path=(*path, name), advice=_PRICE_ADVICE)
        tiers[name] = _price(file, cast("Mapping[str, object]", entries), (*path, name))
    return tiers


def _contract(file: ProjectText, value: object) -> tuple[Term, ...]:
    advice = 'Write [[contract]] with provider or model, and with percent = "-12" or price = { input = …, output = … }.'
    if not isinstance(value, list) or len(cast("list[object]", value)) > _TERMS_MAX:
        file.refuse(f"is not a list of at most {_TERMS_MAX} tables.", path=("contract",), advice=advice)
    terms: list[Term] = []
    for number, entry in enumerate(cast("list[object]", value), start=1):
        path = ("contract", str(number))
        if not isinstance(entry, dict):
            file.refuse("is not a table.", path=path, advice=advice)
        parts = dict(cast("Mapping[str, object]", entry))
        unknown = sorted(parts.keys() - _TERM_FIELDS)
        if unknown:
            file.refuse("is not part of a term.", path=(*path, unknown[0]), advice=advice)
        price = parts.get("price")
        if price is not None:
            if not isinstance(price, dict):
                file.refuse("is no price.", path=(*path, "price"), advice=_PRICE_ADVICE)
            parts["price"] = _price(file, cast("Mapping[str, object]", price), (*path, "price"))
        build = cast("Callable[..., Term]", Term)
        try:
            terms.append(build(**parts))
        except (TypeError, ValueError) as exc:
            said = str(exc).partition(" ")[0]
            file.refuse(str(exc), path=(*path, said) if said in parts else path, advice=advice)
    return tuple(terms)


def _alias(file: ProjectText, value: object, alias: str) -> str:
    if not isinstance(value, str) or not value.strip():
        file.refuse("does not name a model.", path=("aliases", alias), advice='Write it like "azure:gpt-4o".')
    return value
