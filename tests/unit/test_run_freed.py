"""A run is gone with whoever has it last: a server makes one for nearly every request."""

from __future__ import annotations

import gc
from collections.abc import Callable
from weakref import ref

import pytest

from rr_core import Bench, cent_call, done, model_step, tool_step
from runrails.run import Run


def _unused(run: Run) -> None:
    del run


def _driven(run: Run) -> None:
    model_step(run)
    tool_step(run)
    run.report()
    run.close()


def _entered(run: Run) -> None:
    with run:
        run.after_model(run.before_model(cent_call()), done())


@pytest.mark.parametrize("use", [_unused, _driven, _entered])
def test_a_run_is_gone_without_the_collector(use: Callable[[Run], None]) -> None:
    """None of its parts holds it."""
    bench = Bench()
    gc.collect()
    gc.disable()
    try:
        run = bench.guard.run()
        use(run)
        known = ref(run)
        del run
        assert known() is None
    finally:
        gc.enable()
