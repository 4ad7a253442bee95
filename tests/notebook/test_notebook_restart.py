"""What outlives a kernel, what a kernel that was killed leaves behind, and kernels that the environment guards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("openai")

from rr_autoguard import BOOTSTRAP
from rr_notebook import ASK, CENT, Kernel
from runrails.clocks import system_ms
from runrails.ledger import Account
from runrails.stores.sqlite import SQLiteStore
from runrails.testing.provider import Delay, Text, echo

LOAD = "%load_ext runrails_notebook\n%guardrails --month 0.05"


def test_the_month_outlives_the_kernel_and_a_killed_kernels_call_is_charged(tmp_path: Path) -> None:
    """A new kernel has a budget of its own, and the same month; nothing stays held for ever."""
    with Kernel(tmp_path) as kernel:
        kernel.run(LOAD + "\n" + ASK)
        kernel.run("ask(); ask()")
        kernel.script = lambda _: Delay(20_000, Text("late"))
        kernel.begin("ask()")
        kernel.provider.wait_received(3)
        kernel.restart_killed()
        kernel.script = echo
        again = kernel.run(LOAD + "\n" + ASK)
        last = kernel.run("ask()")
        records = kernel.records()

        assert "kernel: $0.00 of $5.00" in again.displays[0]
        assert "user:local: $0.02 of $0.05 in" in again.displays[0]
        assert ["settled", "settled", "held", "settled"] == [record.state for record in records]
        assert ("ok", CENT) == (last.status, records[2].estimated_pusd)
    later = SQLiteStore(kernel.ledger, clock=lambda: system_ms() + 200_000)
    later.expire()
    balance = later.balance(Account("user:local", time.strftime("%Y-%m", time.gmtime())))
    later.close()

    assert (4 * CENT, 0) == (balance.spent, balance.held)


def test_a_kernel_that_the_environment_guards_stays_within_its_budget(tmp_path: Path) -> None:
    """The kernel's run is a part of that one: the lower budget holds, and whose money it is was said there."""
    with Kernel(tmp_path, RUNRAILS_RUN_BUDGET="0.03", PYTHONPATH=str(BOOTSTRAP)) as kernel:
        kernel.run(ASK)
        kernel.run("ask()")
        kernel.run("%load_ext runrails_notebook")
        refused = kernel.run("%guardrails --user bob")
        ended = kernel.run("while True: ask()")

        assert "--user cannot be said here" in refused.out
        assert ("error", "BudgetExceeded", 3) == (ended.status, ended.ename, len(kernel.provider.bill))
