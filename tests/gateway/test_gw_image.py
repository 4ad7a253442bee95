"""The Dockerfile, as far as it can be tried without Docker: what it copies, whose it runs as, and what it starts."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rr_serve import Home
from rr_template_policy import read_template
from runrails.testing.provider import FakeProvider
from runrails_aws.deploy import template
from runrails_gateway.config import Limited
from runrails_gateway.serving import BEHIND_PROXY, kept_alive_s

ROOT = Path(__file__).parents[2]
PORT = "4700"


def steps() -> list[tuple[str, str]]:
    """The instructions, each with its arguments in one line."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def of(instruction: str) -> list[str]:
    """The arguments of every instruction of that name."""
    return [rest for word, rest in steps() if word == instruction]


def copied() -> list[str]:
    """What is copied from the source tree."""
    return [name for rest in of("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]]


def sent(path: str) -> bool:
    """Whether `.dockerignore` lets Docker have a file; the last line that fits it decides."""
    found = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        if any(fnmatch.fnmatch("/".join(parts[: end + 1]), wanted) for end in range(len(parts))) or (
            "**/" in pattern and wanted in parts
        ):
            found = pattern.startswith("!")
    return found


def test_what_is_copied_is_there_and_is_all_that_the_wheel_is_made_of() -> None:
    """Every source exists and is sent; all that `pyproject.toml` names is among them; tests and the ledger are not."""
    sources = copied()
    for name in sources:
        assert (ROOT / name).exists() and sent(name), name
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = told["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], told["project"]["readme"], *told["project"]["license-files"]]
    for name in ("pyproject.toml", *needed):
        assert any(name == source or name.startswith(f"{source}/") for source in sources), name
    assert sent("integrations/runrails_gateway/admin/page/index.html")
    for name in ("tests/conftest.py", ".git/config", "ledger.db", ".env", "guardrails/runrails/__pycache__/run.pyc"):
        assert not sent(name), name


def test_it_is_small_runs_as_nobody_and_has_no_secret() -> None:
    """Slim bases with a version, no cache of pip's, a user with a number, a volume that is theirs, nothing secret."""
    bases = [rest.split()[0] for rest in of("FROM")]
    assert {"python:${PYTHON}-slim"} == set(bases) and re.fullmatch(r"PYTHON=3\.1[1-3]", of("ARG")[0])
    installs = [part for rest in of("RUN") for part in rest.split("&&") if re.search(r"\bpip (install|wheel)\b", part)]
    assert 2 == len(installs) and all("--no-cache-dir" in part for part in installs)
    words = [word for word, _ in steps()]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word in ("RUN", "COPY", "ADD"))
    uid = of("USER")[0].partition(":")[0]
    assert uid.isdecimal() and int(uid) > 0 and f"--uid {uid}" in " ".join(of("RUN"))
    assert ['["/data"]'] == of("VOLUME")
    settings = " ".join([*of("ENV"), *of("ARG")])
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD|PEPPER|BEHIND_PROXY", settings)


def test_it_starts_and_its_health_is_seen(tmp_path: Path) -> None:
    """The command as it stands there, on another port; what looks after it sees that it serves, and that it ended."""
    command = json.loads(of("CMD")[0])
    entry = json.loads(of("ENTRYPOINT")[0])
    health = json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])
    assert (["runrails", "serve"], PORT, [PORT]) == (entry, command[command.index("--port") + 1], of("EXPOSE"))
    settings = dict(word.partition("=")[::2] for rest in of("ENV") for word in shlex.split(rest))
    assert ("/data", "/data") == (settings["HOME"], settings["XDG_DATA_HOME"])
    kept = {name: text for name, text in settings.items() if text not in ("/data", "/app/bin:$PATH")}
    others = [word for word in command if word not in ("--port", PORT)]
    with FakeProvider() as provider:
        home = Home(tmp_path, provider, **kept)
        with home.serve(*others, RUNRAILS_BEHIND_PROXY="1") as served:
            port = served.url.rpartition(":")[2]
            looks = [sys.executable, *[word.replace(PORT, port) for word in health[1:]]]
            assert f":{PORT}/healthz" in health[-1] and "python" == health[0]
            # Limits of callers' runs are none of its.
            env = {**home.env, "RUNRAILS_RUN_BUDGET": "0.01"}
            assert 0 == subprocess.run(looks, env=env, capture_output=True, timeout=60, check=False).returncode
            assert 0 == served.end(getattr(signal, of("STOPSIGNAL")[0]))
            assert 1 == subprocess.run(looks, env=env, capture_output=True, timeout=60, check=False).returncode


def test_without_a_word_about_https_it_does_not_start(tmp_path: Path) -> None:
    """Keys would cross the network as they are; it says what to set."""
    done = Home(tmp_path, None, OPENAI_API_KEY="sk-of-the-house-0123456789abcdefg").run(
        "serve", *json.loads(of("CMD")[0])
    )
    assert (2, "", True) == (done.returncode, done.stdout, "RUNRAILS_BEHIND_PROXY" in done.stderr)


def test_idle_connections_are_closed_by_the_balancer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it the gateway, the balancer would send a request on one that has just been closed, and answer with 502."""
    made = read_template(template("fargate"))["Resources"]
    attributes = made["Balancer"]["Properties"]["LoadBalancerAttributes"]
    (idle_s,) = [int(each["Value"]) for each in attributes if "idle_timeout.timeout_seconds" == each["Key"]]
    (container,) = made["Task"]["Properties"]["ContainerDefinitions"]
    monkeypatch.delenv(BEHIND_PROXY, raising=False)
    assert kept_alive_s() < 120  # a caller's
    for each in container["Environment"]:
        if BEHIND_PROXY == each["Name"]:
            monkeypatch.setenv(BEHIND_PROXY, each["Value"])
    assert kept_alive_s() >= idle_s + 30
    assert 1_000 * idle_s > Limited().request_ms_max
