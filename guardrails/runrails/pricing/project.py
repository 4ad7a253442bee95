"""
The project's own prices: `runrails.toml`.

    [prices."azure:my-deployment"]
    input = "2.50"          # dollars per million tokens
    output = "10.00"

    [prices]
    "ollama:llama3.1" = "0" # costs nothing, and somebody says so

    [aliases]
    my-deployment = "azure:gpt-4o"

Other tables in the file are somebody else's and left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, cast

from runrails.errors import ConfigError
from runrails.pricing.spec import PRICE_FIELDS, Price, PriceSpec, check_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["PROJECT_FILE", "ProjectPrices", "parse_project", "read_project"]

PROJECT_FILE = "runrails.toml"
_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPrices:
    """Prices and other names for models, as the project wrote them."""

    prices: Mapping[str, PriceSpec]
    aliases: Mapping[str, str]


def read_project(path: str | Path) -> ProjectPrices:
    """
    Read the project file.

    Raises:
        ConfigError: It cannot be read, is no TOML, or a price or alias in it is malformed.
    """
    from pathlib import Path

    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(
            f"The price file {file} cannot be read ({exc.strerror or type(exc).__name__}).",
            next_step="Create it or point to another one.",
        ) from exc
    return parse_project(content, name=str(file))


def parse_project(content: bytes, *, name: str = PROJECT_FILE) -> ProjectPrices:
    """
    The prices and aliases in a project file.

    Raises:
        ConfigError: It is no TOML, or a price or alias in it is malformed.
    """
    import tomllib

    if len(content) > _BYTES_MAX:
        raise ConfigError(f"{name} is larger than {_BYTES_MAX:,} bytes.", next_step="Keep only prices in it.")
    try:
        # A number such as 2.50 in the file is exact as a Decimal, so it need not be quoted.
        # Some editors begin a file with a byte order mark, which `utf-8-sig` leaves out.
        data = tomllib.loads(content.decode("utf-8-sig"), parse_float=Decimal)
    except (ValueError, InvalidOperation) as exc:  # TOMLDecodeError, UnicodeDecodeError, a number of 5,000 digits
        raise ConfigError(f"{name} is not valid TOML: {exc}.", next_step="Correct the line it names.") from exc
    except RecursionError as exc:
        raise ConfigError(f"{name} is nested too deeply.", next_step="Write prices as flat tables.") from exc
    prices = {model: _spec(value, model, name) for model, value in _table(data, "prices", name).items()}
    aliases = {alias: _alias(value, alias, name) for alias, value in _table(data, "aliases", name).items()}
    if len({alias.strip().lower() for alias in aliases}) != len(aliases):
        raise ConfigError(
            f"Two aliases in {name} differ only by case or blanks.", next_step="Keep the one that is meant."
        )
    return ProjectPrices(prices=prices, aliases=aliases)


def _table(data: Mapping[str, object], key: str, name: str) -> Mapping[str, object]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"[{key}] in {name} is not a table.", next_step=f"Write [{key}] and put its entries below.")
    return cast("Mapping[str, object]", table)


def _spec(value: object, model: str, name: str) -> PriceSpec:
    where = f"{model!r} in {name}"
    try:
        if not isinstance(value, dict):
            return check_spec(value, where=where)
        return _price(cast("Mapping[str, object]", value))
    except (TypeError, ValueError) as exc:
        raise ConfigError(
            f"The price of {where} is malformed: {exc}",
            next_step=f'Write [prices."{model}"] with input = "…" and output = "…" in dollars per million tokens, '
            'call = "…" in dollars per call, or "0" if it costs nothing.',
        ) from exc


def _price(entries: Mapping[str, object]) -> Price:
    unknown = sorted(entries.keys() - PRICE_FIELDS)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not part of a price")
    # What the file holds is not known here; `Price` checks the types itself.
    build = cast("Callable[..., Price]", Price)
    return build(**entries)


def _alias(value: object, alias: str, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"The alias {alias!r} in {name} does not name a model.", next_step='Write it like "azure:gpt-4o".'
        )
    return value
