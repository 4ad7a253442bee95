"""Threads that one thread starts: bounded, each with one job, nothing lost when they are dismissed."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import Future

import pytest

from runrails.crew import Crew

WAIT_S = 30


@pytest.mark.parametrize("count", [1, 2, 7])
def test_there_are_never_more_threads_than_allowed(count: int) -> None:
    """That many jobs are under way at once; one more waits, and is done afterwards."""
    crew = Crew(count, "crew-test")
    met, go = threading.Barrier(count + 1), threading.Event()

    def work() -> str:
        if not go.is_set():
            met.wait(WAIT_S)
            go.wait(WAIT_S)
        return threading.current_thread().name

    busy = [crew.do(work) for _ in range(count)]
    met.wait(WAIT_S)
    late = crew.do(lambda: "late")
    with pytest.raises(TimeoutError):
        late.result(0.05)
    go.set()
    names = {future.result(WAIT_S) for future in busy}
    assert ("late", count) == (late.result(WAIT_S), len(names))
    assert all("starter" not in name for name in names)
    crew.dismiss()


def test_one_job_after_the_other_takes_few_threads() -> None:
    """A thread that is free is asked before another one is started."""
    crew = Crew(64, "crew-test")
    names = set[str]()
    for _ in range(50):
        names.add(crew.do(lambda: threading.current_thread().name).result(WAIT_S))
        while crew._busy or not crew._pool._idle_semaphore._value:  # a thread says that it is done before it is free
            threading.Event().wait(0.001)
    assert len(names) <= 3
    crew.dismiss()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_a_job_raises_is_told_to_whoever_asked(error: BaseException) -> None:
    """By a thread that was started for it, and by one that was there."""
    crew = Crew(2, "crew-test")

    def fail() -> None:
        raise error

    for _ in range(3):
        assert error is crew.do(fail).exception(WAIT_S)
    assert 5 == crew.do(lambda: 5).result(WAIT_S)
    crew.dismiss()


def test_a_job_that_is_cancelled_in_time_is_not_done() -> None:
    """And takes no thread for ever."""
    crew = Crew(1, "crew-test")
    go = threading.Event()
    first = crew.do(lambda: go.wait(WAIT_S))
    done: list[int] = []
    second = crew.do(lambda: done.append(2))
    assert second.cancel()
    go.set()
    assert first.result(WAIT_S)
    assert 3 == crew.do(lambda: 3).result(WAIT_S)
    assert [] == done
    crew.dismiss()


def test_what_was_given_to_a_crew_is_done_when_it_is_dismissed() -> None:
    """Also what had not got a thread yet; afterwards nothing is taken on."""
    crew = Crew(8, "crew-test")
    jobs = [crew.do(lambda number=number: number) for number in range(40)]  # type: ignore[misc]
    crew.dismiss()
    assert list(range(40)) == [job.result(WAIT_S) for job in jobs]
    with pytest.raises(RuntimeError):
        crew.do(lambda: 1)


def test_threads_end_with_their_crew() -> None:
    """Nobody has to dismiss one that is no longer there."""
    before = set(threading.enumerate())
    crew = Crew(3, "crew-test")
    gate = threading.Barrier(3)
    jobs: list[Future[int]] = [crew.do(lambda: gate.wait(WAIT_S)) for _ in range(3)]
    assert {0, 1, 2} == {job.result(WAIT_S) for job in jobs}
    mine = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("crew-test")}
    assert len(mine) >= 3
    del crew, jobs
    for _ in range(100):
        gc.collect()
        if not any(thread.is_alive() for thread in mine):
            return
        next(iter(mine)).join(0.1)
    pytest.fail("Threads were left behind.")
