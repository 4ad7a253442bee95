"""The extension in a real kernel: what is guarded, how cells end, the meter, interrupts, tasks and threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("openai")

from rr_notebook import AGENT, ASK, CENT, Kernel, Ran
from runrails.testing.provider import Delay, Text, echo, never_gives_up


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for this file; what a test needs of the budget it sets itself."""
    with Kernel(tmp_path_factory.mktemp("notebook")) as kernel:
        assert "ok" == kernel.run(ASK + "\nbefore = client").status
        loaded = kernel.run("%load_ext runrails_notebook")
        assert loaded.out == (
            "runrails guards this kernel: $5.00 until it is restarted, 200 steps a cell. Change it with %guardrails "
            "--budget AMOUNT. Clients made before: 1, guarded as well.\n"
        )
        kernel.run("import runrails_notebook as n")
        yield kernel


def spent(kernel: Kernel) -> int:
    """What the kernel itself says it has spent."""
    return int(kernel.run("n.kernel_guard().spent_pusd").result)


def number(ran: Ran) -> int:
    """A cell's number, as in `In [3]`."""
    return int(ran.of("execute_input")[0]["execution_count"])


def test_a_client_made_before_the_extension_was_loaded_is_guarded(kernel: Kernel) -> None:
    """Its calls are in the ledger, and draw on the cell's and the kernel's budget."""
    ran = kernel.run("%%guarded --run 0.02 --name first\nfor _ in range(9): ask(before)")

    assert ("error", "BudgetExceeded", 2) == (ran.status, ran.ename, len(kernel.provider.bill))
    assert ran.evalue.startswith("The budget of this cell is used up: $0.02 spent and $0.00 held of $0.02;")
    assert 2 * CENT == sum(record.actual_pusd or 0 for record in kernel.records()) == spent(kernel)


def test_a_stopped_cell_ends_with_a_panel_and_one_line_and_the_next_cell_goes_on(kernel: Kernel) -> None:
    """No traceback; the error is an error for whoever runs all cells; the line is the cell's own."""
    ran = kernel.run("%%guarded --run 0.01\nprint('a')\nask()\nask()\nprint('b')")
    (error,) = ran.of("error")

    assert ("error", "a\n") == (ran.status, ran.out)
    assert ["\x1b[31mBudgetExceeded\x1b[0m in line 4 of the cell"] == [line[:45] for line in error["traceback"]][:1]
    assert 1 == len(error["traceback"])
    assert 1 == len([text for text in ran.displays if text.startswith("Stopped: the budget is used up")])
    assert "begin the cell with a higher `%%guarded --run`" in ran.displays[0]
    assert ("ok", "'hi'") == (kernel.run("ask()").status, kernel.run("ask()").result)


def test_the_kernels_budget_stops_every_cell_until_it_is_raised(kernel: Kernel) -> None:
    """Also cells that begin after it; `%guardrails --budget` lets them go on."""
    now = spent(kernel) // CENT
    kernel.run(f"%guardrails --budget 0.{now + 1:02}")
    assert "ok" == kernel.run("ask()").status
    refused = kernel.run("ask()")
    hits = len(kernel.provider.bill)

    assert ("error", "BudgetExceeded") == (refused.status, refused.ename)
    assert refused.evalue.startswith("The budget of this kernel is used up")
    assert ("error", hits) == (kernel.run("%%guarded --run 1\nask()").status, len(kernel.provider.bill))
    assert "ok" == kernel.run("%guardrails --budget 5").status
    assert "'hi'" == kernel.run("ask()").result


def test_an_agent_that_never_gives_up_is_stopped_in_sync_and_async_cells(kernel: Kernel) -> None:
    """LangChain needs no callback; `await` at the top of a cell is as good; a task group's stop is the same panel."""
    pytest.importorskip("langchain")
    kernel.script = never_gives_up("search", {"q": "x"})
    assert "ok" == kernel.run(AGENT).status
    ended = [
        kernel.run(code)
        for code in (
            "agent.invoke(question)",
            "await agent.ainvoke(question)",
            "import asyncio\nasync with asyncio.TaskGroup() as group:\n    group.create_task(agent.ainvoke(question))",
        )
    ]
    kernel.script = echo

    assert [("error", "LoopDetected")] * 3 == [(ran.status, ran.ename) for ran in ended]
    assert [1, 1, 1] == [len(ran.of("error")[0]["traceback"]) for ran in ended]
    assert all("`%guardrails --poll search`" in ran.evalue for ran in ended)


def test_a_guard_of_the_notebooks_own_draws_on_the_cell_as_well(kernel: Kernel, tmp_path: Path) -> None:
    """With the same ledger; with another one, in which the cell's budget could not be held, it is refused."""
    kernel.run(
        "from runrails import Guard, Limits\nmine = Guard(Limits(run='1'))\nown = mine.wrap(OpenAI(max_retries=0))"
    )
    ran = kernel.run("%%guarded --run 0.02\nwith mine.run():\n    while True: ask(own)")
    cost = kernel.run("n.kernel_guard().cells[-1].cost_pusd").result
    other = kernel.run(f"Guard(store='sqlite:///{tmp_path / 'other.db'}').run()")

    assert ("error", "BudgetExceeded", f"{2 * CENT}") == (ran.status, ran.ename, cost)
    assert ran.evalue.startswith("The budget of this cell is used up")
    assert "ConfigError" == other.ename
    assert "`%guardrails off`" in other.evalue


def test_the_middleware_of_the_kernels_guard_ends_an_agent_with_an_answer(kernel: Kernel) -> None:
    """It can hint and block, where the callback that LangChain is given by itself can only stop."""
    pytest.importorskip("langchain")
    kernel.script = never_gives_up("search", {"q": "x"})
    kernel.run(AGENT + "\nfrom runrails_langchain import GuardrailMiddleware")
    ran = kernel.run(
        "polite = create_agent(ChatOpenAI(model='fake-model', max_retries=0, max_tokens=50), [search], "
        "middleware=[GuardrailMiddleware(n.kernel_guard().guard)])\nlen(polite.invoke(question)['messages'])"
    )
    kernel.script = echo

    assert ("ok", True) == (ran.status, int(ran.result) > 8)
    assert "last tool search (blocked) · block: search, 4 times the same" in ran.displays[-1]


def test_the_meter_moves_while_the_cell_works_and_belongs_to_its_cell(kernel: Kernel) -> None:
    """One display, updated in place; the last one says how it ended. Every message has the cell's own parent."""
    kernel.script = lambda _: Delay(150, Text("hi"))
    ran = kernel.run("%%guarded --run 1 --name slow\nfor _ in range(10): ask()")
    kernel.script = echo
    shown = [message for message in ran.messages if message["msg_type"] in ("display_data", "update_display_data")]
    places = {message["content"]["transient"]["display_id"] for message in shown}

    assert ("ok", 1, "display_data") == (ran.status, len(places), shown[0]["msg_type"])
    assert 2 <= len(shown)
    assert "slow · working" in ran.displays[0]
    assert "slow · done" in ran.displays[-1]
    assert "$0.10 of $1.00" in ran.displays[-1]
    assert all('class="rr-out"' in message["content"]["data"]["text/html"] for message in shown)


def test_a_cell_that_calls_nothing_shows_no_meter(kernel: Kernel) -> None:
    """Nothing is shown where nothing was guarded."""
    assert [] == kernel.run("1 + 1").displays


def test_a_display_that_fails_does_not_break_the_cell(kernel: Kernel) -> None:
    """The meter ends, the panel becomes the error's text; the cell's own work and its error are as ever."""
    kernel.script = lambda _: Delay(100, Text("hi"))
    kernel.run("from IPython import get_ipython\npublish = get_ipython().display_pub.publish")
    kernel.run("def broken(*a, **k): raise OSError('no display')\nget_ipython().display_pub.publish = broken")
    fine = kernel.run("for _ in range(4): last = ask()\nlast")
    stopped = kernel.run("%%guarded --run 0.01\nwhile True: ask()")
    kernel.run("get_ipython().display_pub.publish = publish")
    kernel.script = echo

    assert ("ok", "'hi'", []) == (fine.status, fine.result, fine.displays)
    assert ("error", "BudgetExceeded") == (stopped.status, stopped.ename)
    assert "What you can do" in stopped.of("error")[0]["traceback"][0]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_interrupting_a_cell_in_the_middle_of_a_call_settles_the_call(kernel: Kernel, how: str) -> None:
    """Exactly one row more in the ledger, charged at its hold; nothing is held; the next cell goes on."""
    kernel.script = lambda _: Delay(20_000, Text("late"))
    before, received = kernel.records(), len(kernel.provider.received)
    kernel.run("from openai import AsyncOpenAI\nslow = AsyncOpenAI(max_retries=0)")
    code = {
        "sync": "ask()",
        "async": "await slow.chat.completions.create(model='fake-flat', messages=[{'role': 'user', 'content': 'hi'}],"
        " max_tokens=16)",
    }[how]
    message = kernel.begin(code)
    kernel.provider.wait_received(received + 1)
    kernel.manager.interrupt_kernel()
    ran = kernel.finish(message)
    kernel.script = echo
    new = kernel.records()[len(before) :]

    assert "error" == ran.status
    assert ran.ename in ("KeyboardInterrupt", "CancelledError")
    assert [("unresolved", CENT)] == [(record.state, record.actual_pusd) for record in new]
    assert "'hi'" == kernel.run("ask()").result


def test_a_cell_that_is_interrupted_while_ipython_prepares_it_leaves_the_next_one_its_own(kernel: Kernel) -> None:
    """IPython tells of such an end with another object than of the beginning; no limit outlives its cell."""
    kernel.run(
        "class Interrupts:\n    def visit(self, tree):\n        get_ipython().ast_transformers.clear()\n"
        "        raise KeyboardInterrupt\nget_ipython().ast_transformers.append(Interrupts())"
    )
    broken = kernel.run("%%guarded --run 0.01 --name lost\nask()")
    ran = kernel.run("ask(); ask(); [cell.title for cell in n.kernel_guard().running]")

    assert ("error", "KeyboardInterrupt") == (broken.status, broken.ename)
    assert ("ok", f"['[{number(ran)}]']") == (ran.status, ran.result)


def test_a_task_that_goes_on_after_its_cell_is_guarded_by_the_kernel(kernel: Kernel) -> None:
    """Its late call belongs neither to its own cell, which has ended, nor to the one that runs by then."""
    kernel.run(
        "from openai import AsyncOpenAI\nimport asyncio\nafar = AsyncOpenAI(max_retries=0)\ngate = asyncio.Event()"
    )
    kernel.run(
        "async def late():\n    await gate.wait()\n"
        "    return (await afar.chat.completions.create(model='fake-flat', max_tokens=16, "
        "messages=[{'role': 'user', 'content': 'hi'}])).choices[0].message.content\n"
        "task = asyncio.create_task(late())\nask()"
    )
    ran = kernel.run("gate.set()\nprint(await task)\nask()")
    rest = kernel.run("n.kernel_guard().rest.cost_pusd, [c.cost_pusd for c in list(n.kernel_guard().cells)[-2:]]")
    table = kernel.run("%guardrails table")

    assert ("ok", "hi\n") == (ran.status, ran.out)
    assert f"({CENT}, [{CENT}, {CENT}])" == rest.result
    assert "outside of cells" in table.displays[0]


def test_threads_draw_on_the_cell_that_works(kernel: Kernel) -> None:
    """They have no context of their own; a pool made in an earlier cell is no way around a cell's budget."""
    kernel.run(
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        "list(pool.map(lambda _: ask(), range(2)))"
    )
    ran = kernel.run("%%guarded --run 0.03\nlist(pool.map(lambda _: ask(), range(20)))")

    assert ("error", "BudgetExceeded") == (ran.status, ran.ename)
    assert f"{3 * CENT}" == kernel.run("n.kernel_guard().cells[-1].cost_pusd").result


def test_a_forked_worker_draws_on_the_cell_it_was_forked_in(kernel: Kernel) -> None:
    """The ledger holds its calls in the same runs, whatever the parent's counts of its own say."""
    hits = len(kernel.provider.bill)
    ran = kernel.run(
        "%%guarded --run 0.03\nask()\nimport multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool: print(pool.apply(ask))\nwhile True: ask()"
    )

    assert ("error", "BudgetExceeded") == (ran.status, ran.ename)
    assert "hi\n" in ran.out  # newer Pythons also warn of forks beside threads
    assert 3 == len(kernel.provider.bill) - hits


def test_a_loop_that_swallows_every_exception_ends_as_well(kernel: Kernel) -> None:
    """After so many refused attempts the stop is no `Exception` any more, and the cell ends with the same panel."""
    kernel.run("import runrails_notebook.kernel as k\ngrace, k._GRACE_MS = k._GRACE_MS, 0")
    ran = kernel.run("%%guarded --run 0.01\ntries = 0\nwhile True:\n    try: ask()\n    except Exception: tries += 1")
    kernel.run("k._GRACE_MS = grace")

    assert ("error", "BudgetExceeded", "26") == (ran.status, ran.ename, kernel.run("tries").result)


def test_what_is_written_wrongly_executes_nothing(kernel: Kernel) -> None:
    """A cell whose limit cannot be read is not executed without it; settings stay as they were."""
    hits, before = len(kernel.provider.bill), kernel.run("n.kernel_guard().settings").result
    ran = kernel.run("%%guarded --run 0,50€\nask()")
    settings = kernel.run("%guardrails --budget -1 --month 3")

    assert ("error", hits) == (ran.status, len(kernel.provider.bill))
    assert "--run is not a number of dollars" in ran.out
    assert "--budget must be more than $0" in settings.out
    assert before == kernel.run("n.kernel_guard().settings").result


@pytest.mark.parametrize("around", ["%%time", "%%capture"])
def test_a_limit_that_would_not_hold_executes_nothing(kernel: Kernel, around: str) -> None:
    """What another magic executes is in the cell around it; the other way round the limit holds."""
    hits = len(kernel.provider.bill)
    inside = kernel.run(f"{around}\n%%guarded --run 0.01\nask(); ask()")
    executed = len(kernel.provider.bill) - hits
    outside = kernel.run(f"%%guarded --run 0.01\n{around}\nask(); ask()")

    assert 0 == executed
    assert "must be the first line of a cell" in inside.of("error")[0]["traceback"][0]
    assert (1, "BudgetExceeded") == (len(kernel.provider.bill) - hits, outside.of("error")[0]["ename"])


@pytest.mark.parametrize("history", [False, True])
def test_a_cell_that_executes_another_keeps_its_limits(kernel: Kernel, history: bool) -> None:
    """Whether that one is kept in the history or not, and after it has ended as well."""
    hits = len(kernel.provider.bill)
    inner = f"get_ipython().run_cell('ask()', store_history={history})"
    for code in (f"{inner}\nask(); ask()", f"import asyncio\nawait asyncio.sleep(0)\n{inner}\nask(); ask()"):
        ran = kernel.run(f"%%guarded --run 0.02\n{code}")
        assert ("error", "BudgetExceeded") == (ran.status, ran.ename)
    assert 4 == len(kernel.provider.bill) - hits


def test_a_program_that_a_cell_runs_is_stopped_without_a_traceback(kernel: Kernel) -> None:
    """`%run` shows exceptions by itself; a stop is told in the same words as in a cell."""
    kernel.run(f"from pathlib import Path\nPath('program.py').write_text({(ASK + 'ask()' + chr(10)) * 2!r})")
    ran = kernel.run("%%guarded --run 0.01\n%run program.py")
    (error,) = ran.of("error")

    assert ("BudgetExceeded", 1) == (error["ename"], len(error["traceback"]))
    assert error["traceback"][0].startswith("Stopped: the budget is used up\n\nThe budget of this cell is used up")
    assert "Traceback" not in error["traceback"][0]


def test_other_errors_are_shown_as_ever(kernel: Kernel) -> None:
    """Tracebacks of the cell's own exceptions are whole, groups with more than stops too."""
    plain = kernel.run("def f(): return 1 / 0\nf()")
    mixed = kernel.run("raise ExceptionGroup('both', [ValueError('mine')])")

    assert ("ZeroDivisionError", True) == (plain.ename, len(plain.of("error")[0]["traceback"]) > 1)
    assert ("error", "ExceptionGroup") == (mixed.status, mixed.ename)


def test_off_stops_nothing_and_still_writes_down(kernel: Kernel) -> None:
    """`%guardrails off` is undone by `on`; unloading the extension is the same, and loading guards again."""
    kernel.run("%guardrails --budget 5 --cell 0.01")
    before = len(kernel.records())
    shown = kernel.run("%guardrails off")
    free = kernel.run("ask(); ask(); ask()")
    kernel.run("%guardrails on")
    stopped = kernel.run("ask(); ask()")
    kernel.run("%unload_ext runrails_notebook")
    gone = kernel.run("%guardrails")
    kernel.run("ask(); ask()")
    loaded = kernel.run("%load_ext runrails_notebook\nask(); ask()")
    cells = "[(cell.number, cell.cost_pusd) for cell in n.kernel_guard().cells][-2:], n.kernel_guard().running[1:]"
    again = kernel.run("ask(); ask()")
    told = kernel.run(cells)
    kernel.run("%guardrails --cell none")

    assert shown.displays[0].startswith("runrails is off in this kernel")
    assert ("ok", "error", "error") == (free.status, stopped.status, again.status)
    assert "not found" in gone.out
    assert ("error", 3 + 1 + 2 + 1 + 1) == (loaded.status, len(kernel.records()) - before)
    assert f"([({number(loaded)}, {CENT}), ({number(again)}, {CENT})], [])" == told.result
