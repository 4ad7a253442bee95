"""
A generated corpus of labelled runs: loops, with where each begins and by when it must be stopped, and healthy runs.

The labels come from the ladder, not from what the detector does. Every value that is volatile in life is
drawn afresh from the seed, so another seed is another corpus of the same families.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

from rr_loop_runs import (
    FAILURES,
    NO_TOOLS,
    POLL,
    WORDS,
    Played,
    Run,
    Step,
    clock,
    healthy_runs,
    hex_digits,
    page,
    play,
    uuid,
    volatile_shapes,
    work,
)
from runrails.loops import ToolRule

__all__ = ["Played", "Run", "Step", "corpus", "held_out", "play", "volatile_shapes"]


def corpus(seed: int) -> list[Run]:
    """All families, with fresh values from `seed`."""
    rng = random.Random(seed)
    return [*_loops(rng), *healthy_runs(rng)]


# Values.


def _loop(
    name: str, steps: list[Step], *, begins: int = 1, due: int | None = None, tools: dict[str, ToolRule] | None = None
) -> Run:
    return Run(name, steps, begins, begins + 4 if due is None else due, tools or NO_TOOLS)


# Loops.


def _loops(rng: random.Random) -> Iterator[Run]:
    yield from _volatile_loops(rng)
    yield from _jitter_loops(rng)
    yield from _plain_loops(rng)
    yield from _cycle_loops(rng)
    yield from _late_loops(rng)
    yield from _interleaved_loops(rng)
    yield from _grinding_loops(rng)
    yield from _batch_and_agent_loops(rng)
    yield from _poll_loops(rng)


def _volatile_loops(rng: random.Random) -> Iterator[Run]:
    for shape, make in volatile_shapes().items():
        for where in ("error", "text"):
            failure = rng.choice(FAILURES)
            args = {"review_id": rng.randrange(1000), "text": rng.choice(WORDS)}
            steps = [Step("classify_review", args, f"{failure} {make(rng)}", ok=where == "text") for _ in range(12)]
            yield _loop(f"volatile {shape} in {where}", steps)
    for key in ("request_id", "requestId", "took_ms", "timestamp", "messageId", "duration", "trace-id", "elapsed_ms"):
        steps = [
            Step("send", {"to": "ops"}, json.dumps({"status": "queued", key: hex_digits(rng, 10), "items": [1, 2]}))
            for _ in range(12)
        ]
        yield _loop(f"volatile key {key}", steps)
    yield _loop(
        "keys in changing order",
        [
            Step("find", {"q": "x"}, json.dumps(dict(rng.sample([("a", 1), ("b", [2]), ("c", None)], 3))))
            for _ in range(12)
        ],
    )
    for size in (3_000, 19_000, 200_000):
        body = " ".join(rng.choice(WORDS) for _ in range(size // 6))
        yield _loop(
            f"changing header of {size} characters",
            [Step("build", {"target": "all"}, f"2026-11-21T{clock(rng)}Z start\n{body}", ok=False) for _ in range(12)],
        )


def _jitter_loops(rng: random.Random) -> Iterator[Run]:
    number = rng.randrange(2, 99)
    spellings: dict[str, list[object]] = {
        "key order": [{"a": 1, "b": number}, {"b": number, "a": 1}],
        "white space": [{"q": "late  delivery"}, {"q": " late delivery\n"}, {"q": "late\tdelivery"}],
        "case": [{"q": "Late Delivery"}, {"q": "late delivery"}, {"q": "LATE DELIVERY"}],
        "unicode form": [{"q": "cafe\u0301"}, {"q": "caf\u00e9"}, {"q": "ｃａｆé"}],
        "zero width": [{"q": "late\u200b delivery"}, {"q": "late delivery"}, {"q": "\ufefflate delivery"}],
        "number form": [{"n": number}, {"n": float(number)}],
        "nulls": [{"q": "x", "lang": None}, {"q": "x"}],
        "json text": ['{"q": "x", "n": 1}', {"n": 1.0, "q": "x"}, '{ "n":1,"q":"X" }'],
        "nested": [{"f": {"a": [1, 2.0], "b": None}}, {"f": {"a": [1.0, 2]}}],
        "attempt": [{"q": "x", "attempt": i} for i in range(1, 13)],
        "nonce": [{"q": "x", "nonce": hex_digits(rng, 8)} for _ in range(12)],
        "since": [{"q": "x", "since": rng.randrange(10**9)} for _ in range(12)],
        "timeout": [{"q": "x", "timeout_ms": 1000 * i} for i in range(1, 13)],
        "idempotency key": [{"q": "x", "idempotencyKey": uuid(rng)} for _ in range(12)],
        "thought": [{"q": "x", "reasoning": f"let me try {rng.choice(WORDS)} {i}"} for i in range(12)],
    }
    for name, forms in spellings.items():
        steps = [Step("classify", forms[i % len(forms)], rng.choice(("no result",)), ok=False) for i in range(12)]
        yield _loop(f"jitter: {name}", steps)


def _plain_loops(rng: random.Random) -> Iterator[Run]:
    outcomes: tuple[tuple[str, object, bool], ...] = (
        ("nothing", None, True), ("no text", "", True), ("blanks", "  \n", True), ("no rows", [], True),
        ("no keys", {}, True), ("null text", "null", True), ("no rows in json", '{"results": []}', True),
        ("not successful", {"success": False, "code": 7}, True), ("error key", '{"error": "boom"}', True),
        ("says nothing found", "No results found.", True), ("raised", "KeyError: 'x'", False),
        ("success", "the same page again", True), ("long page", page(rng, 1, 40), True), ("number", 42, True),
        ("list of blocks", [{"type": "text", "text": "same"}], True), ("surrogate", "bad \ud800 text", False),
    )  # fmt: skip
    for name, result, ok in outcomes:
        yield _loop(f"plain: {name}", [Step("lookup", {"id": rng.randrange(9)}, result, ok)] * 12)


def _cycle_loops(rng: random.Random) -> Iterator[Run]:
    for length in (2, 3, 4, 5):
        for kind in ("success", "failure", "volatile", "mixed"):
            calls = [{"id": rng.randrange(10**6), "n": i} for i in range(length)]
            steps: list[Step] = []
            for i in range(length * 8):
                which = i % length
                failing = kind in ("failure", "volatile") or (kind == "mixed" and which == 0)
                tail = f" at {clock(rng)}" if kind == "volatile" else ""
                steps.append(Step(f"tool_{which}", calls[which], f"answer {which}{tail}", not failing))
            yield _loop(f"cycle of {length}: {kind}", steps, due=5 * length)


def _late_loops(rng: random.Random) -> Iterator[Run]:
    for healthy in (15, 40, 120, 600):
        for failing in (True, False):
            before = list(work(rng, healthy))
            loop = [
                Step("deploy", {"env": "test"}, f"same state, took {rng.random():.3f}s", not failing) for _ in range(9)
            ]
            yield _loop(f"late after {healthy}", before + loop, begins=healthy + 1)


def _interleaved_loops(rng: random.Random) -> Iterator[Run]:
    for between in (1, 2, 3, 5):
        for failure, ok in (("error: no route", False), ("Classification failed - no result", True), ("[]", True)):
            steps: list[Step] = []
            for _ in range(14):
                steps.append(Step("classify", {"id": 13}, f"{failure}", ok))
                steps += work(rng, between)
            # The 8th failure comes after seven rounds.
            yield _loop(f"failure among {between} healthy: {failure}", steps, due=7 * (between + 1) + 1)
    for between in (1, 3):
        steps = []
        for _ in range(20):
            steps.append(Step("classify", {"id": 13}, ""))
            steps += work(rng, between)
        yield _loop(f"silence among {between} healthy", steps, due=15 * (between + 1) + 1)


def _grinding_loops(rng: random.Random) -> Iterator[Run]:
    # Inputs that nothing is found for are work; "no results" for the same question in other words is not.
    for tools in (1, 3):
        about = rng.sample(WORDS, 6)
        steps = [Step(f"query_{i % tools}", {"q": " ".join(rng.sample(about, 5))}, "no results") for i in range(40)]
        steps = [Step(f"query_{i % tools}", {"q": " ".join(about)}, "no results") for i in range(tools)] + steps
        yield _loop(f"no results, reworded, {tools} tools", steps, due=10 + tools)
    for text, ok in (("Error: permission denied", False), ("Tool failed: bad gateway", True)):
        for tools in (1, 3):
            steps = [
                Step(f"query_{i % tools}", {"q": f"{rng.choice(WORDS)} {i} {rng.randrange(10**6)}"}, text, ok)
                for i in range(20)
            ]
            yield _loop(f"same failure, {tools} tools: {text}", steps, due=10)
    vocabulary = rng.sample(WORDS, 5)
    opening = [Step("search", {"q": word}, " ".join(vocabulary)) for word in vocabulary]
    for _ in range(3):
        queries = [rng.sample(vocabulary, 3) for _ in range(80)]
        unique = list({" ".join(q): q for q in queries}.values())
        steps = [*opening, *(Step("search", {"q": " ".join(q)}, " ".join(rng.sample(vocabulary, 5))) for q in unique)]
        yield _loop("shuffled queries over known words", steps, begins=len(opening) + 1, due=len(opening) + 14)
    lines = [f"{word} {i}" for i, word in enumerate(WORDS)]
    many = [
        Step("grep", {"q": " ".join(rng.sample(vocabulary, 3))}, "\n".join(rng.sample(lines, len(lines))))
        for _ in range(50)
    ]
    yield _loop("shuffled lines", [*opening, *many], begins=len(opening) + 1, due=len(opening) + 34)


def _batch_and_agent_loops(rng: random.Random) -> Iterator[Run]:
    for width in (2, 3, 10):
        steps = [
            Step("classify", {"id": 1}, f"failed at {clock(rng)}", False, batch=n, id=f"c{n}-{i}")
            for n in range(8)
            for i in range(width)
        ]
        yield _loop(f"batches of {width} equal calls", steps, due=4 * width + 1)
    for width in (2, 4):
        steps = [
            Step("classify", {"id": i}, "no result", batch=n, id=f"c{n}-{i}") for n in range(8) for i in range(width)
        ]
        yield _loop(f"batches of {width} different calls", steps, due=5 * width)
    equal = [Step("classify", {"id": 1}, "no result", batch=1, id=f"c{i}") for i in range(14)]
    yield _loop("14 equal calls in one answer", equal, due=11)
    retried = [Step("fetch", {"id": 1}, f"503 Service Unavailable {clock(rng)}", False, batch=1, id="c1")] * 9
    yield _loop("a retry layer runs one call again and again", retried)
    for agents in (2, 3):
        steps = []
        healthy = [work(rng, 20, agent=f"root/helper{i}") for i in range(agents - 1)]
        for _ in range(9):
            steps.append(Step("classify", {"id": 1}, f"no result ({clock(rng)})", agent="root/stuck"))
            steps += [next(work) for work in healthy]
        yield _loop(f"one of {agents} agents", steps, due=4 * agents + 1)


def _poll_loops(rng: random.Random) -> Iterator[Run]:
    for tail in (False, True):
        steps = [
            Step("get_status", {"job": 7}, {"status": "running", "timestamp": rng.random() if tail else 0})
            for _ in range(40)
        ]
        yield _loop("a declared poll without end", steps, due=24, tools=POLL)
    done = [Step("get_status", {"job": 7}, '{"status": "failed"}') for _ in range(12)]
    yield _loop("a poll of what is over", done, tools=POLL)
    yield _loop(
        "an undeclared poll without change", [Step("check", {"job": 7}, f"pending at {clock(rng)}") for _ in range(12)]
    )


# Healthy runs.


def held_out(seed: int) -> list[Run]:
    """Loops and healthy runs in which several kinds of noise meet."""
    rng = random.Random(seed)
    return [*_noisy_loops(rng), *_noisy_healthy(rng)]


def _noise(rng: random.Random) -> Callable[[], str]:
    """Three kinds of noise, chosen once a run as a program would; their values are fresh each time."""
    makers = rng.sample(list(volatile_shapes().values()), 3)
    return lambda: " ".join(make(rng) for make in makers)


def _traceback(rng: random.Random, noise: Callable[[], str]) -> str:
    return (
        f"{noise()}\nTraceback (most recent call last):\n"
        f'  File "/tmp/tmp{hex_digits(rng, 8)}/job.py", line 12, in run\n'
        f"    client.send(<Request object at 0x{hex_digits(rng, 12)}>)\n"
        f"TimeoutError: no answer after {rng.randrange(30_000, 30_999)} ms [{uuid(rng)}]"
    )


def _noisy_loops(rng: random.Random) -> Iterator[Run]:
    for _ in range(10):
        noise = _noise(rng)
        args = {"text": rng.choice(WORDS), "limit": 5}
        forms: tuple[object, ...] = (args, {"limit": 5.0, "text": args["text"].upper()}, json.dumps(args))
        yield _loop(
            "noise and jitter",
            [Step("classify", rng.choice(forms), f"no label {noise()}", False) for _ in range(9)],
        )
        yield _loop("tracebacks", [Step("job", args, _traceback(rng, noise), False) for _ in range(9)])
        body = [
            json.dumps(
                {
                    "error": {"code": 504, "request_id": uuid(rng), "detail": f"upstream {noise()}"},
                    "took": rng.random(),
                }
            )
            for _ in range(9)
        ]
        yield _loop("json error bodies", [Step("api", rng.choice(forms), text) for text in body])
        length = rng.randrange(2, 6)
        cycle = [
            Step(f"t{i % length}", {"k": i % length, "attempt": i}, f"state {i % length} {noise()}")
            for i in range(8 * length)
        ]
        before = list(work(rng, rng.randrange(5, 60)))
        yield _loop("noisy cycle, late", before + cycle, begins=len(before) + 1, due=len(before) + 5 * length)
        between = rng.randrange(1, 5)
        steps: list[Step] = []
        for _ in range(10):
            steps += [Step("classify", rng.choice(forms), _traceback(rng, noise), False), *work(rng, between)]
        yield _loop("noisy failure among healthy", steps, due=7 * (between + 1) + 1)


def _noisy_healthy(rng: random.Random) -> Iterator[Run]:
    for _ in range(10):
        noise = _noise(rng)
        failures = rng.randrange(1, 5)
        steps = [Step("job", {"a": 1}, _traceback(rng, noise), False) for _ in range(failures)]
        yield Run("tracebacks, then success", [*steps, Step("job", {"a": 1}, "done"), *work(rng, 10)])
        count = rng.randrange(6, 30)
        yield Run("progress in noise", [Step("job", {"a": 1}, f"{i} of {count} {noise()}") for i in range(count)])
        steps = []
        for failing in range(count, 0, -1):
            steps += [
                Step("bash", {"command": "make test"}, f"{noise()}\n{failing} tests failed\n{noise()}", False),
                Step("edit", {"path": f"{rng.choice(WORDS)}.c", "text": str(rng.randrange(10**9))}, ""),
                Step("bash", {"command": "git status --short"}, " M a.c"),
            ]
        yield Run("debugging in noise", steps)
        mixed = list(work(rng, rng.randrange(100, 400)))
        for at in range(0, len(mixed), rng.randrange(9, 30)):
            mixed.insert(at, Step("read_file", {"path": "PLAN.md"}, "1. do it\n2. check it"))
        yield Run("long, with the plan read again", mixed)
        batches = [
            Step(
                "lookup",
                {"id": rng.randrange(10**6)},
                rng.choice(("no results", f"hit {rng.random()}")),
                batch=n,
                id=f"{n}.{i}",
            )
            for n in range(12)
            for i in range(8)
        ]
        yield Run("batches of lookups", batches)
