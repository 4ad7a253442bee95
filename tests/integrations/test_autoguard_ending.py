"""`runrails run`: how programs end, what their exit codes say, and that nothing else about them changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_autoguard import ASK, BOOTSTRAP, CENT, Bench, path_of
from runrails.cli.shell import run
from runrails.stores.sqlite import SQLiteStore

pytest.importorskip("openai")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    with Bench(tmp_path, monkeypatch, capfd) as bench:
        yield bench


def test_a_program_that_stays_within_its_budget_is_not_changed(bench: Bench) -> None:
    """Its input, output, arguments and exit code are its own; the summary is on standard error alone."""
    program = bench.program(
        ASK + "import sys\nask(); print(sys.stdin.read(), sys.argv[1:], __name__); print('oops', file=sys.stderr)\n"
        "sys.exit(4)"
    )
    with bench.start("--run", "0.02", "--json", "s.json", "--", sys.executable, str(program), "--run", "x") as process:
        out, err = process.communicate("in", timeout=100)
    summary = json.loads((bench.folder / "s.json").read_text(encoding="utf-8"))

    assert (4, "in ['--run', 'x'] __main__\n") == (process.returncode, out)
    assert err.startswith("oops\nrunrails: ended; 1 model call, 0 tool calls, $0.01 of $0.02")
    assert (1, ["openai"], 1, CENT) == (bench.hits, summary["guarded"], summary["model_calls"], summary["cost_pusd"])
    assert (CENT, 0) == bench.spent(f"run:{summary['run']}")


def test_a_stop_that_nobody_catches_is_told_in_three_lines(bench: Bench) -> None:
    """Exit code 3; what, whose, how much, what next, and where; no traceback. What is done at the end is done."""
    ran = bench.guarded(
        ASK + "import atexit\natexit.register(lambda: print('at exit'))\n"
        "try:\n    while True: ask()\nfinally:\n    print('finally')",
        "--run", "0.03", "--month", "9",
    )  # fmt: skip

    assert (3, "finally\nat exit\n", 3) == (ran.code, ran.out, bench.hits)
    assert "Traceback" not in ran.err
    told = ran.err.splitlines()[:3]
    assert told[0].startswith("runrails stopped this program (budget exceeded): The budget of run:")
    assert "$0.03 spent and $0.00 held of $0.03" in told[0]
    assert "  If that is not enough, start it with a higher --run (RUNRAILS_RUN_BUDGET)." == told[1]
    assert told[2].endswith("agent.py:6 in ask")
    assert ("budget_exceeded", 3) == (ran.summary["stopped"]["error"], ran.summary["exit_code"])


@pytest.mark.parametrize(("options", "code"), [((), 3), (("--stop-code", "9"), 9), (("--stop-code", "own"), 0)])
def test_a_stop_that_the_program_swallows_is_seen(bench: Bench, options: tuple[str, ...], code: int) -> None:
    """The program may save what it has; the exit code tells of the stop, unless it is to be the program's own."""
    ran = bench.guarded(
        ASK + "try:\n    while True: ask()\nexcept Exception as exc:\n    print('saved', type(exc).__name__)",
        "--run", "0.01", *options,
    )  # fmt: skip

    assert (code, "saved BudgetExceeded\n", 1) == (ran.code, ran.out, bench.hits)
    assert "runrails: stopped (budget exceeded)" in ran.err


def test_a_program_s_own_failure_is_its_own(bench: Bench) -> None:
    """Its traceback and its exit code stay."""
    ran = bench.guarded("raise RuntimeError('mine')", "--run", "1")

    assert 1 == ran.code
    assert "Traceback" in ran.err
    assert "RuntimeError: mine" in ran.err


def test_a_refused_call_is_no_stop(bench: Bench) -> None:
    """An unknown price: exit code 1 as for any exception, a text instead of a traceback, and the summary has it."""
    ran = bench.guarded(ASK.replace("fake-flat", "nobody-knows-it") + "ask()")

    assert (1, 0) == (ran.code, bench.hits)
    assert "Traceback" not in ran.err
    assert "runrails refused (price unknown)" in ran.err
    assert [("price_unknown", 1)] == [(item["code"], item["count"]) for item in ran.summary["refused"]]
    assert ran.summary["stopped"] is None


def test_a_program_that_goes_on_asking_is_ended(bench: Bench) -> None:
    """`except Exception: continue` for ever costs nothing and, after the grace, does not go on for ever either."""
    ran = bench.guarded(
        ASK + "n = 0\nwhile True:\n    n += 1\n    try: ask()\n    except Exception: pass\n    finally:\n"
        "        if n in (2, 26): print(n, flush=True)",
        "--run", "0.01", "--grace", "0",
    )  # fmt: skip

    assert (3, "2\n26\n", 1) == (ran.code, ran.out, bench.hits)
    assert "Traceback" not in ran.err


def test_killed_by_a_signal(bench: Bench) -> None:
    """128 + the signal, also after a stop: what killed it is what must be looked into."""
    ran = bench.guarded("import os\nos.kill(os.getpid(), 9)")

    assert 128 + signal.SIGKILL == ran.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_program(bench: Bench, number: signal.Signals) -> None:
    """As if the program had been started alone: it decides what to make of them."""
    program = bench.program(f"""
        import signal, sys, time
        signal.signal({int(number)}, lambda *_: sys.exit(6))
        print("ready", flush=True)
        time.sleep(30)
    """)
    before = signal.signal(number, lambda *_: None)  # what a shell has set to be ignored, programs leave ignored
    try:
        process = bench.start("--", sys.executable, str(program))
    finally:
        signal.signal(number, before)
    with process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=100)

    assert 6 == process.returncode


def test_what_hangs_is_ended_when_the_time_is_up(bench: Bench) -> None:
    """`--seconds`: the stop is first, then the grace, then the end; the exit code is that of a stop."""
    ran = bench.guarded("import time\ntime.sleep(60)", "--seconds", "1", "--grace", "0")

    assert (3, "limit_reached") == (ran.code, ran.summary["stopped"]["error"])
    assert "start it with a higher --seconds" in ran.err


def test_observing_stops_nothing(bench: Bench) -> None:
    """The summary says what would have been stopped."""
    ran = bench.guarded(ASK + "for _ in range(3): ask()", "--run", "0.01", "--observe")

    assert (0, 3, None) == (ran.code, bench.hits, ran.summary["stopped"])
    assert "The budget of run:" in ran.summary["would_have_stopped"]
    assert "runrails: observed; 3 model calls" in ran.err


def test_nothing_to_guard_is_said_loudly(bench: Bench) -> None:
    """Whether the program imported no SDK, or was no Python."""
    for command, said in (
        ((sys.executable, "-c", "print(1)"), "imported no SDK"),
        ((sys.executable, "-S", "-c", "print(1)"), "no Python has loaded the guard"),
        (("echo", "1"), "no Python has loaded the guard"),
    ):
        ran = bench.run("--", *command)
        assert (0, "1\n") == (ran.code, ran.out)
        assert "NOTHING WAS GUARDED" in ran.err
        assert said in ran.err


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--run", "abc", "--", "true"), 2),
        (("--run", "0", "--", "true"), 2),
        (("--steps", "many", "--", "true"), 2),
        (("--user", "a b", "--", "true"), 2),
        (("--store", "memory:", "--", "true"), 2),
        (("--store", "sqlite:////no/such/folder/x.db", "--", "true"), 2),
        (("--price", "x=1", "--", "true"), 2),
        (("--stop-code", "0", "--", "true"), 2),
        (("--nonsense", "--", "true"), 2),
        ((), 2),
        (("--", "no-such-program"), 127),
        (("--", os.devnull), 126),
    ],
)
def test_what_cannot_be_started(args: tuple[str, ...], code: int, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong setting is told by the names of its option and variable, before anything is started."""
    assert code == run(["run", *args])
    told = capfd.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    if args and args[0] in ("--run", "--steps", "--user", "--price"):
        assert f"({args[0]})" in told.err


def test_a_script_without_its_first_line_cannot_be_executed(bench: Bench) -> None:
    """As shells number it, in one sentence."""
    script = bench.program("echo 1", "script.sh")
    script.chmod(0o755)
    ran = bench.run("--", str(script))

    assert (126, "") == (ran.code, ran.out)
    assert "Traceback" not in ran.err
    assert f"{script} cannot be executed" in ran.err


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", "--json - >&-", "--json - >/dev/full"])
def test_the_exit_code_does_not_depend_on_who_listens(bench: Bench, closed: str) -> None:
    """A summary that cannot be told is not told."""
    if "full" in closed and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    options, _, where = closed.rpartition(" ")
    line = f"exec {sys.executable} -m runrails.cli run {options} -- sh -c 'exit 7' {where}"
    assert 7 == subprocess.run(["sh", "-c", line], check=False, capture_output=True, timeout=100).returncode


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full"])
def test_a_stop_that_cannot_be_told_has_its_exit_code(bench: Bench, closed: str) -> None:
    """Where the environment alone guards, too."""
    if "full" in closed and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    program = bench.program(ASK + "ask(); ask()")
    line = f"exec {sys.executable} {program} {closed}"
    env = bench.environment({"PYTHONPATH": path_of(BOOTSTRAP), "RUNRAILS_RUN_BUDGET": "0.01"})
    assert 3 == subprocess.run(["sh", "-c", line], env=env, check=False, capture_output=True, timeout=100).returncode


def test_a_run_inside_a_run_is_refused(bench: Bench) -> None:
    """The outer budget holds for everything; a second one would have to be on top of it."""
    ran = bench.run("--", sys.executable, "-m", "runrails.cli", "run", "--", "echo", "inner")

    assert (2, "") == (ran.code, ran.out)
    assert "Leave out `runrails run` in here." in ran.err


def test_a_python_without_runrails_may_run_but_not_use_an_sdk(bench: Bench) -> None:
    """What cannot be guarded there cannot be imported there; everything else works."""
    bare = Path(sys.base_prefix) / "bin" / "python3"
    if not bare.exists() or sys.prefix == sys.base_prefix:
        pytest.skip("no Python without runrails at hand")
    program = bench.program("print('before')\nimport openai\nprint('after')")
    ran = bench.run("--", "sh", "-c", f"PYTHONPATH={BOOTSTRAP} exec {bare} {program}")

    assert (1, "before\n") == (ran.code, ran.out)
    assert "is not installed for" in ran.err
    assert [os.path.realpath(bare)] == [os.path.realpath(found) for found in ran.summary["pythons_without_runrails"]]


@pytest.mark.parametrize("damage", ["def f(:", "raise AttributeError('x')"])
def test_a_python_whose_runrails_does_not_load_may_not_use_an_sdk(bench: Bench, damage: str) -> None:
    """Damaged, or too new for that Python: what Python says of it at its start nobody may read."""
    bare = Path(sys.base_prefix) / "bin" / "python3"
    if not bare.exists() or sys.prefix == sys.base_prefix:
        pytest.skip("no Python without runrails at hand")
    for name, text in (("__init__", ""), ("autoguard/__init__", ""), ("autoguard/boot", damage)):
        bench.program(text, f"old/runrails/{name}.py")
    bench.program("", "old/openai.py")
    program = bench.program("print('before')\nimport openai\nprint('after')")
    ran = bench.run("--", "sh", "-c", f"PYTHONPATH={BOOTSTRAP}:{bench.folder / 'old'} exec {bare} {program}")

    assert (1, "before\n") == (ran.code, ran.out)
    assert "does not load there: openai was not imported" in ran.err


def test_the_summary_can_go_to_standard_output_or_nowhere(bench: Bench) -> None:
    """`--json -` comes after what the program has written; `--quiet` leaves standard error alone."""
    with bench.start("--quiet", "--json", "-", "--", "echo", "1") as process:
        out, err = process.communicate(timeout=100)

    first, _, rest = out.partition("\n")
    assert ("1", "", 0) == (first, err, json.loads(rest)["exit_code"])


def test_the_run_is_kept_for_the_report(bench: Bench) -> None:
    """`runrails report` shows it like any other run, with the name and the tags it was given."""
    ran = bench.guarded(ASK + "ask()", "--name", "nightly", "--tag", "team=search", "--user", "alice")
    store = SQLiteStore(bench.ledger)
    record = store.run(ran.summary["run"])
    usage = list(store.usage(run=ran.summary["run"]))
    store.close()

    assert record is not None
    assert ("nightly", "alice", 1) == (record.name, record.user, record.report["model_calls"])
    assert [(("team", "search"),)] == [item.facts.tags for item in usage]
