"""`runrails run`: what of a program is guarded, however it calls its models and whatever processes it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rr_autoguard import ASK, BOOTSTRAP, CENT, Bench, path_of
from runrails.testing.provider.stories import founding

pytest.importorskip("openai")
pytest.importorskip("langchain_openai")

TOO_OFTEN = """
def until_stopped(call):
    done = 0
    try:
        while done < 20:
            call()
            done += 1
    except Exception as exc:
        print(type(exc).__name__)
    return done
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    with Bench(tmp_path, monkeypatch, capfd) as bench:
        yield bench


def test_the_founding_agent_unmodified(bench: Bench) -> None:
    """A LangChain agent that knows nothing of runrails: five executed failures, one reservation a call, exit code 3."""
    bench.script = founding()
    ran = bench.guarded("""
        from langchain.agents import create_agent
        from langchain_core.tools import tool
        from langchain_openai import ChatOpenAI

        @tool
        def classify_review(text: str) -> str:
            "Classify a review."
            print("executed")
            return "no result"

        agent = create_agent(ChatOpenAI(model="fake-model", max_tokens=50), [classify_review])
        agent.invoke({"messages": [("user", "Classify the reviews.")]})
    """)

    assert (3, "executed\n" * 5, 5) == (ran.code, ran.out, bench.hits)
    assert ("loop_detected", ["langchain_core", "openai"]) == (
        ran.summary["stopped"]["error"], ran.summary["guarded"]
    )  # fmt: skip
    assert "start it with --poll classify_review" in ran.err
    assert "Traceback" not in ran.err
    assert (5, 5, 10) == tuple(ran.summary[key] for key in ("model_calls", "tool_calls", "steps"))
    assert (bench.provider.bill.total_pusd(), 0) == bench.spent(f"run:{ran.summary['run']}")


def test_every_client_of_the_openai_sdk(bench: Bench) -> None:
    """Synchronous, asynchronous, Azure, a copy, a subclass, the module's own client, embeddings, threads."""
    ran = bench.guarded(
        ASK + """
import asyncio, os, threading, openai
from openai import AsyncOpenAI, AzureOpenAI
ask()
ask(client.with_options(timeout=9))
class Mine(OpenAI): pass
ask(Mine())
ask(openai)
ask(AzureOpenAI(azure_endpoint=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"), api_version="1",
                 api_key="k", base_url=None))
client.embeddings.create(model="fake-embedding", input="x")
async def main():
    async with AsyncOpenAI() as one:
        await ask(one)
    with client.chat.completions.stream(
        model="fake-flat", messages=[{"role": "user", "content": "hi"}], max_tokens=16
    ) as stream:
        for _ in stream: pass
asyncio.run(main())
thread = threading.Thread(target=ask)
thread.start(); thread.join()
print("nine")
try: ask()
except openai.OpenAIError: print("wrong type")
except Exception as exc: print(type(exc).__name__)
""",
        "--run", "0.09",
    )  # fmt: skip

    assert (3, "nine\nBudgetExceeded\n", 9) == (ran.code, ran.out, bench.hits)
    assert (9 * CENT, 0) == bench.spent(f"run:{ran.summary['run']}")


def test_clients_of_the_anthropic_sdk(bench: Bench) -> None:
    """Made for Anthropic or for Bedrock; one that nobody could guard is refused when it is made."""
    ran = bench.guarded(
        TOO_OFTEN + """
from anthropic import Anthropic, AnthropicVertex
client = Anthropic(max_retries=0)
said = [{"role": "user", "content": "hi"}]
print(until_stopped(lambda: client.messages.create(model="fake-flat", messages=said, max_tokens=16)))
try: AnthropicVertex(region="x", project_id="y")
except Exception as exc: print(type(exc).__name__)
""",
        "--run", "0.02",
    )  # fmt: skip

    assert (3, "BudgetExceeded\n2\nConfigError\n", 2) == (ran.code, ran.out, bench.hits)


def test_clients_of_bedrock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of boto3, made by whatever session; one that the program wraps itself is paid once, and both hold."""
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", bench.provider.bedrock_url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    ran = bench.guarded(
        TOO_OFTEN + """
import boto3
from runrails import Guard, Limits
def ask(client):
    said = [{"role": "user", "content": [{"text": "hi"}]}]
    client.converse(modelId="fake-flat", messages=said, inferenceConfig={"maxTokens": 16})
client = boto3.client("bedrock-runtime")
ask(client)
guard = Guard(Limits(run="0.02", month="9"), user="alice", sinks=[])
with guard.run():
    ask(client)
wrapped = guard.wrap(boto3.Session().client("bedrock-runtime"))
print(until_stopped(lambda: ask(wrapped)), until_stopped(lambda: ask(client)))
""",
        "--run", "0.06",
    )  # fmt: skip

    assert (3, "BudgetExceeded\nBudgetExceeded\n2 2\n", 6) == (ran.code, ran.out, bench.hits)
    assert (6 * CENT, 0) == bench.spent(f"run:{ran.summary['run']}")
    assert (3 * CENT, 0) == bench.spent("user:alice", ran.summary["balances"][0]["period"])


def test_one_budget_for_a_tree_of_processes(bench: Bench) -> None:
    """Forked, spawned, pooled and started anew: they reserve in one account, and a stop in one is a stop in all."""
    ran = bench.guarded(
        TOO_OFTEN + """
import multiprocessing, subprocess, sys
from concurrent.futures import ProcessPoolExecutor

def work(n):
    from openai import OpenAI
    client = OpenAI(max_retries=0)
    said = [{"role": "user", "content": "hi"}]
    for _ in range(n):
        client.chat.completions.create(model="fake-flat", messages=said, max_tokens=16)
    return n

if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(1)
        sys.exit()
    work(1)
    subprocess.run([sys.executable, __file__, "child"], check=True)
    for kind in ("fork", "spawn"):
        process = multiprocessing.get_context(kind).Process(target=work, args=(1,))
        process.start(); process.join()
        assert process.exitcode == 0
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        print(until_stopped(lambda: list(pool.map(work, [1, 1]))) < 20)
    try: work(1)
    except Exception as exc: print(type(exc).__name__)
""",
        "--run", "0.10", "--steps", "8",
    )  # fmt: skip

    assert (3, "BudgetExceeded\nTrue\nBudgetExceeded\n", 10) == (ran.code, ran.out, bench.hits)
    assert (10, 10 * CENT) == (ran.summary["model_calls"], ran.summary["cost_pusd"])
    assert ran.summary["processes"] >= 5
    assert (10 * CENT, 0) == bench.spent(f"run:{ran.summary['run']}")


def test_a_fork_at_the_worst_moment(bench: Bench) -> None:
    """Other threads are making a client, and following what LangChain runs: the child does not wait for them."""
    ran = bench.guarded(
        ASK
        + """
import gc, os, signal, threading
from langchain_openai import ChatOpenAI
import runrails.clients.guarded as making
from runrails_langchain.tracking import Tracker
model = ChatOpenAI(model="fake-flat", max_tokens=16)
model.invoke("hi"); ask()
(tracker,) = (found for found in gc.get_objects() if isinstance(found, Tracker))
locks = [making._lock, tracker._lock]
taken, done = threading.Event(), threading.Event()
def take():
    for lock in locks: lock.acquire()
    taken.set(); done.wait()
    for lock in locks: lock.release()
thread = threading.Thread(target=take)
thread.start(); taken.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    ask(OpenAI(max_retries=0)); model.invoke("hi")
    os._exit(0)
print(os.waitpid(child, 0)[1])
done.set(); thread.join()
"""
    )

    assert (0, "0\n", 4) == (ran.code, ran.out, bench.hits)


def test_a_process_that_is_told_twice_is_guarded(bench: Bench) -> None:
    """A child whose environment asks for the guard once more, as a `.env` file may, belongs to the run."""
    ran = bench.guarded(
        ASK + """
import os, subprocess, sys
ask()
if len(sys.argv) == 1:
    told = {**os.environ, "RUNRAILS_AUTOGUARD": "1"}
    print(subprocess.run([sys.executable, __file__, "child"], env=told, capture_output=True).returncode)
""",
        "--run", "0.01",
    )  # fmt: skip

    assert (3, "3\n", 1) == (ran.code, ran.out, bench.hits)


def test_what_the_program_guards_itself_is_paid_once_and_both_hold(bench: Bench) -> None:
    """Its own guard's runs are part of the program's run: one reservation in the accounts of both."""
    ran = bench.guarded(
        ASK + TOO_OFTEN + """
from runrails import Guard, Limits
own = Guard(Limits(run="0.02", month="9"), user="alice", sinks=[])
ask()                                  # 1: nobody's but the program's
with own.run() as run:
    ask()                              # 2: a client that was guarded from outside, in a run of its own guard
print(run.report().cost_pusd // 10**10)
wrapped = own.wrap(OpenAI(max_retries=0))
print(until_stopped(lambda: ask(wrapped)))  # 3, 4: the limit of its own guard
ask()                                  # 5: which does not stop the program
print(until_stopped(ask))               # 6, 7: the limit of the program
""",
        "--run", "0.07", "--user", "bob",
    )  # fmt: skip

    assert (3, "1\nBudgetExceeded\n2\nBudgetExceeded\n2\n", 7) == (ran.code, ran.out, bench.hits)
    assert (7, 7 * CENT) == (ran.summary["model_calls"], ran.summary["cost_pusd"])
    month = ran.summary["balances"][0]["period"]
    assert [(7 * CENT, 0), (3 * CENT, 0)] == [bench.spent("user:bob", month), bench.spent("user:alice", month)]


def test_langchain_calls_that_the_program_guards_itself_are_paid_once(bench: Bench) -> None:
    """By a callback of the call or of the model, by `with`, by a wrapped client below, or by nothing."""
    ran = bench.guarded("""
        from langchain_core.runnables import RunnableLambda
        from langchain_openai import ChatOpenAI
        from runrails import Guard, Limits, current_run
        from runrails_langchain import GuardrailCallbackHandler

        guard = Guard(Limits(run="1", month="9"), user="alice", sinks=[])
        handler = GuardrailCallbackHandler(guard)
        model = ChatOpenAI(model="fake-flat", max_tokens=16)
        spent = []
        def tell():
            spent.append(current_run().report().cost_pusd // 10**10)
        model.invoke("nothing"); tell()
        model.invoke("of the call", config={"callbacks": [handler]}); tell()
        inner = ChatOpenAI(model="fake-flat", max_tokens=16, callbacks=[handler])
        RunnableLambda(lambda said: inner.invoke(said)).invoke("of the model"); tell()
        with guard.run():
            model.invoke("with")
        tell()
        below = ChatOpenAI(model="fake-flat", max_tokens=16)
        guard.wrap(below.root_client)
        below.invoke("below"); tell()
        print(spent)
    """)

    assert (0, "[1, 2, 3, 4, 5]\n", 5) == (ran.code, ran.out, bench.hits)
    month = ran.summary["balances"][0]["period"]
    assert [(5 * CENT, 0), (4 * CENT, 0)] == [bench.spent("user:local", month), bench.spent("user:alice", month)]


def test_a_guard_with_other_books_is_refused(bench: Bench) -> None:
    """The run's budget could not be held in another store; nothing is sent."""
    ran = bench.guarded(
        ASK + 'from runrails import Guard\nclient = Guard(store="memory:").wrap(client)\nask()', "--run", "1"
    )

    assert (1, 0) == (ran.code, bench.hits)
    assert "another store than the run it was started in" in ran.err


def test_an_sdk_that_cannot_be_guarded_cannot_be_imported(bench: Bench) -> None:
    """A version without what guarding needs: the import says so, and nothing of it can be used."""
    bench.program("class OpenAI:\n    def __init__(self): print('made')\nAsyncOpenAI = OpenAI\n", "openai.py")
    ran = bench.guarded("try: import openai\nexcept ImportError: print('optional')\nopenai.OpenAI()")

    assert (1, "") == (ran.code, ran.out)
    assert "runrails refused (config error): This version of openai has no request" in ran.err


def test_however_the_program_is_named(bench: Bench) -> None:
    """`python -m`, a script that is executable, a module that a tool runs; and a `sitecustomize` of its own stays."""
    bench.program("", "pkg/__init__.py")
    bench.program(ASK + "import sitecustomize; ask(); print(sitecustomize.MINE)", "pkg/__main__.py")
    bench.program("MINE = 'kept'", "theirs/sitecustomize.py")
    bench.program(f"#!{sys.executable}\n" + ASK + "ask()", "script").chmod(0o755)
    bench.program(ASK + "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): ask()", "test_it.py")
    os.environ["PYTHONPATH"] = path_of(bench.folder, bench.folder / "theirs")

    ran = bench.run("--", sys.executable, "-m", "pkg")
    script = bench.run("--", "./script")
    tested = bench.run("--", sys.executable, "-m", "unittest", "test_it")

    assert (0, "kept\n", 1) == (ran.code, ran.out, ran.summary["model_calls"])
    assert [(0, 1), (0, 1)] == [(other.code, other.summary["model_calls"]) for other in (script, tested)]


def test_the_environment_alone(bench: Bench) -> None:
    """For containers: the same guard, the exit code of an uncaught stop, and the summary at the end."""
    program = bench.program(ASK + "import subprocess, sys\nask()\nif len(sys.argv) == 1:\n"
                            "    subprocess.run([sys.executable, __file__, 'x'], check=True)\n    ask()")  # fmt: skip
    ran = bench.alone(str(program), RUNRAILS_RUN_BUDGET="0.02", RUNRAILS_MONTH_BUDGET="5")

    assert (3, 2) == (ran.code, bench.hits)
    assert "runrails stopped this program (budget exceeded)" in ran.err
    assert "runrails: stopped (budget exceeded); 2 model calls, 0 tool calls, $0.02 of $0.02" in ran.err
    assert "of $5.00" in ran.err
    assert 1 == ran.err.count("runrails: stopped")


def test_the_environment_alone_says_nothing_where_there_is_nothing_to_say(bench: Bench) -> None:
    """Every Python of a container has it; most never call a model."""
    assert (0, "1\n", "", {}) == bench.alone("-c", "print(1)", RUNRAILS_RUN_BUDGET="2")
    assert (0, "1\n", "", {}) == bench.alone("-c", "print(1)", RUNRAILS_RUN_BUDGET="abc", RUNRAILS_AUTOGUARD="0")
    assert (0, "1\n", "", {}) == bench.alone("-c", "print(1)", RUNRAILS_USER="a b")


@pytest.mark.parametrize(
    "wrong", ["RUNRAILS_RUN_BUDGET", "RUNRAILS_MONTH_BUDGET", "RUNRAILS_STEPS", "RUNRAILS_AUTOGUARD"]
)
def test_a_wrong_value_in_the_environment_keeps_the_program_from_starting(bench: Bench, wrong: str) -> None:
    """Exit code 2, one message, and not a line of the program is run."""
    ran = bench.alone("-c", "print('started')", **{wrong: "plenty"})

    assert (2, "") == (ran.code, ran.out)
    assert "so it was not started" in ran.err
    assert wrong in ran.err
    assert "Traceback" not in ran.err


def test_the_file_of_the_installation_is_what_loads_it(bench: Bench) -> None:
    """The `.pth` line that the wheel has: inert without a budget, and the guard with one."""
    line = (BOOTSTRAP.parent / "startup.pth").read_text(encoding="utf-8")
    bench.program(line, "site/startup.pth")
    load = f"import site, sys; site.addsitedir({str(bench.folder / 'site')!r})"
    code = f"{load}; print('runrails.autoguard.boot' in sys.modules)"

    quiet = bench.alone("-c", code, PYTHONPATH=path_of())
    wanted = bench.alone("-c", code, PYTHONPATH=path_of(), RUNRAILS_MONTH_BUDGET="1")

    assert [(0, "False\n"), (0, "True\n")] == [(quiet.code, quiet.out), (wanted.code, wanted.out)]
