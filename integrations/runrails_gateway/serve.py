"""`runrails serve`: the gateway as one command."""

from __future__ import annotations

import os
import socket
from enum import StrEnum
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from runrails.cli.output import AsJson, print_json, stderr
from runrails.errors import ConfigError
from runrails.stores import absolute_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runrails.secretvalue import Secret
    from runrails_gateway.config import GatewayConfig

__all__ = ["serve"]

PORT = 4700
_YES = frozenset({"1", "true", "yes", "on"})
WORKERS_MAX = 64
_QUICK = "?synchronous=normal"
_QUICK_MEANS = "a killed process loses nothing; a power cut may lose the last seconds"


class LogChoice(StrEnum):
    """Which requests are logged."""

    ALL = "all"
    PROBLEMS = "problems"
    OFF = "off"


def serve(  # noqa: PLR0917 -- Typer names them all
    host: Annotated[str, typer.Option("--host", help="The address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0: any that is free.")] = PORT,
    workers: Annotated[int, typer.Option("--workers", min=1, max=WORKERS_MAX, help="Processes: one a core.")] = 1,
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="The ledger; by default RUNRAILS_STORE, else SQLite.")
    ] = None,
    vault: Annotated[
        str | None,
        typer.Option("--vault", metavar="URL", help="Where keys are; by default RUNRAILS_VAULT, else by the store."),
    ] = None,
    docs: Annotated[bool, typer.Option("--docs", help="Serve /docs and /openapi.json.")] = False,
    hide_amounts: Annotated[
        bool, typer.Option("--hide-amounts", help="Do not tell callers what calls cost and what is left.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", exists=True, dir_okay=False, help="Certificate, for HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", exists=True, dir_okay=False, help="Its key.")] = None,
    log: Annotated[
        LogChoice | None, typer.Option("--log", help="Which requests are logged, as JSON; by default problems.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="See that everything is there; serve nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Serve OpenAI's and Anthropic's HTTP, with everybody's budgets and loop stops, on one base URL.

    Upstreams are those whose keys are set (OPENAI_API_KEY, ANTHROPIC_API_KEY), or what RUNRAILS_UPSTREAMS names.
    The first start makes an administrator's key and prints it, once.
    """
    _check_installed()
    _settings(store, vault, log, docs=docs, hide_amounts=hide_amounts)
    _check_reachable(host, tls_cert, tls_key)
    from runrails_gateway.firststart import admin_key, make_secrets
    from runrails_gateway.handover import Handed, figures_together, go_on, options_here
    from runrails_gateway.ops.loglines import configure

    configure()
    made = make_secrets()
    options = options_here()
    with figures_together(workers if options is None else 1):
        callers, upstreams = _callers(), _upstreams()
        bound = None if check else _bind(host, port)
        key = None if check else admin_key()
        url = _url(host, port if bound is None else bound.getsockname()[1], tls=tls_cert is not None)
        _tell(url, callers, upstreams, made, key, as_json=as_json)
        if bound is not None:
            cert, private = (None if each is None else str(each) for each in (tls_cert, tls_key))
            with bound:
                if options is not None:
                    go_on(bound, Handed(workers, cert, private, as_json), options)
                from runrails_gateway.serving import serve_on

                serve_on(bound, workers=workers, tls_cert=cert, tls_key=private)


def _check_installed() -> None:
    missing = [name for name in ("fastapi", "aiohttp", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The gateway needs {', '.join(missing)}, which is not installed.",
            next_step="pip install 'runrails[gateway]'",
        )


def _settings(store: str | None, vault: str | None, log: LogChoice | None, *, docs: bool, hide_amounts: bool) -> None:
    """Options become settings, which the workers inherit. The limits there are of runs, not of a worker."""
    os.environ["RUNRAILS_AUTOGUARD"] = "0"
    if store is not None:
        os.environ["RUNRAILS_STORE"] = absolute_url(store)
    elif not os.environ.get("RUNRAILS_STORE"):
        # An fsync for every call would be most of what a call costs.
        os.environ["RUNRAILS_STORE"] = f"{absolute_url()}{_QUICK}"
    if vault is not None:
        os.environ["RUNRAILS_VAULT"] = absolute_url(vault)
    if log is not None:
        os.environ["RUNRAILS_GATEWAY_LOG"] = log.value
    for name, wanted in (("RUNRAILS_GATEWAY_DOCS", docs), ("RUNRAILS_GATEWAY_HIDE_AMOUNTS", hide_amounts)):
        if wanted:
            os.environ[name] = "1"
    if absolute_url().startswith("memory:"):
        raise ConfigError(
            "A gateway on a memory store forgets every key and every budget when it ends.",
            next_step="Leave --store out for SQLite, or write --store sqlite:////path/to/ledger.db.",
        )


def _check_reachable(host: str, tls_cert: Path | None, tls_key: Path | None) -> None:
    if tls_key is not None and tls_cert is None:
        raise ConfigError("There is a key for HTTPS, and no certificate.", next_step="Give --tls-cert as well.")
    behind = os.environ.get("RUNRAILS_BEHIND_PROXY", "").strip().lower() in _YES
    if not _is_local(host) and tls_cert is None and not behind:
        raise ConfigError(
            f"Keys would cross the network to {host} without encryption.",
            next_step="Give --tls-cert and --tls-key; or set RUNRAILS_BEHIND_PROXY=1 if a proxy in front does HTTPS.",
        )


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _callers() -> Sequence[str]:
    """What credentials are taken, in words."""
    from runrails.identity.opening import aws_of_environment
    from runrails_gateway.environment import callers_of_environment

    aws = aws_of_environment()
    if aws is not None and aws.by_events:
        raise ConfigError(
            "RUNRAILS_AWS_EVENTS has a function on Lambda believe its events, and a server has none.",
            next_step="Unset it; or start runrails_gateway.aws_lambda:handler on Lambda.",
        )
    return callers_of_environment()


def _upstreams() -> Sequence[tuple[str, str, str]]:
    """Opened once before the workers are, so that what is wrong is said once and plainly."""
    from runrails_gateway.config import GatewayConfig

    config: GatewayConfig = GatewayConfig.from_env()
    try:
        return [(each.name, each.base_url, ", ".join(each.models)) for each in config.upstreams]
    finally:
        config.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"Nothing can listen at {host}, port {port}: {error.strerror or 'no such address'}.",
            next_step="End what listens there, or choose another one with --port.",
        ) from None
    return bound


def _url(host: str, port: int, *, tls: bool) -> str:
    shown = "127.0.0.1" if host in {"0.0.0.0", "localhost"} else f"[{host}]" if ":" in host else host  # noqa: S104 -- compared
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def _tell(
    url: str, callers: Sequence[str], upstreams: Sequence[tuple[str, str, str]], made: Sequence[str],
    key: Secret | None, *, as_json: bool,
) -> None:  # fmt: skip
    """The key is the only thing on stdout that is secret, and is there this once."""
    if as_json:
        print_json(
            {
                "url": url, "page": f"{url}/admin", "store": absolute_url(), "secrets": list(made),
                "callers": list(callers),
                "upstreams": [{"name": name, "base_url": base, "models": models} for name, base, models in upstreams],
                "admin_key": None if key is None else key.reveal(),
            }
        )  # fmt: skip
        return
    table = Table.grid(padding=(0, 2))
    ledger = absolute_url()
    rows = [("listening", url), ("page", f"{url}/admin"), ("ledger", ledger)]
    rows += [("", _QUICK_MEANS)] if ledger.endswith(_QUICK) else []
    rows += [("callers", each) for each in callers]
    rows += [("upstream", f"{name}  {base}  {models}") for name, base, models in upstreams]
    rows += [("made here", setting) for setting in made]
    for name, text in rows:
        table.add_row(Text(name, "dim"), Text(text, overflow="fold"))
    out = stderr()
    out.print(table)
    if key is not None:
        out.print("\nThe administrator's key, shown this once:", soft_wrap=True)
        print(key.reveal(), flush=True)
        out.print(f"\nTry it:  curl -H 'x-api-key: …' {url}/v1/models", soft_wrap=True)
