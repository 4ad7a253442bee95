"""What the corpus is made of: runs, how they are played, values that are volatile in life, and the healthy runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from runrails.calls import Block, Finding, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector, ToolRule

__all__ = [
    "FAILURES",
    "NO_TOOLS",
    "POLL",
    "WORDS",
    "Played",
    "Run",
    "Step",
    "clock",
    "healthy_runs",
    "hex_digits",
    "page",
    "play",
    "uuid",
    "volatile_shapes",
    "work",
]

NO_TOOLS: Mapping[str, ToolRule] = MappingProxyType({})
POLL = {"get_status": ToolRule(poll=True)}


class Step(NamedTuple):
    """One tool call and what it gave; `tool` None is a message of the user."""

    tool: str | None
    args: object = None
    result: object = None
    ok: bool = True
    batch: int | None = None
    agent: str = ""
    id: str | None = None


class Run(NamedTuple):
    """A labelled run. Steps are counted from 1."""

    name: str
    steps: list[Step]
    begins: int | None = None
    """Where the loop begins; None for a healthy run."""
    due: int | None = None
    """The step after which a run guarded by the callback alone must have been stopped."""
    tools: Mapping[str, ToolRule] = NO_TOOLS

    @property
    def is_loop(self) -> bool:
        """Whether the run is stuck."""
        return self.begins is not None


class Played(NamedTuple):
    """What the detector said of a run, by step from 1."""

    hint_at: int | None
    block_at: int | None
    stop_at: int | None
    hints: int
    executed: int
    finding: Finding | None


def play(run: Run, *, can_block: bool = False, detector: LoopDetector | None = None) -> Played:
    """Feed a run to a detector until it stops; a blocked call is not executed, and the recorded run goes on."""
    detector = detector or LoopDetector(tools=run.tools)
    hint_at = block_at = None
    hints = executed = 0
    for number, step in enumerate(run.steps, 1):
        if step.tool is None:
            detector.user_message(step.agent)
            continue
        call = ToolCall(name=step.tool, args=step.args, id=step.id, batch=step.batch, agent=step.agent)
        verdict = detector.before_tool(call, can_block=can_block)
        if isinstance(verdict, Stop):
            return Played(hint_at, block_at, number, hints, executed, verdict.finding)
        if isinstance(verdict, Block):
            block_at = block_at or number
            continue
        executed += 1
        finding = detector.after_tool(call, ToolOutcome(ok=step.ok, result=step.result), can_block=can_block)
        if finding is not None and finding.level == "hint":
            hints += 1
            hint_at = hint_at or number
        elif finding is not None:
            return Played(hint_at, block_at, number, hints, executed, finding)
    return Played(hint_at, block_at, None, hints, executed, None)


def hex_digits(rng: random.Random, digits: int) -> str:
    while True:
        text = "".join(rng.choice("0123456789abcdef") for _ in range(digits))
        if not text.isalpha() and not text.isdecimal():
            return text


def uuid(rng: random.Random) -> str:
    return "-".join(hex_digits(rng, n) for n in (8, 4, 4, 4, 12))


def clock(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"


def volatile_shapes() -> dict[str, Callable[[random.Random], str]]:
    """By name, ways in which a text changes each time it is made without saying anything new."""
    return {
        "iso": lambda r: (
            f"[2026-{r.randrange(1, 13):02d}-{r.randrange(1, 29):02d}T{clock(r)}.{r.randrange(1000):03d}Z]"
        ),
        "log time": lambda r: f"2026-11-21 {clock(r)},{r.randrange(1000):03d} worker",
        "clock": lambda r: f"at {clock(r)}",
        "epoch": lambda r: f"(ts {r.randrange(1_600_000_000, 1_900_000_000)})",
        "epoch ms": lambda r: f"(ts {r.randrange(1_600_000_000_000, 1_900_000_000_000)})",
        "uuid": lambda r: f"(request {uuid(r)})",
        "request id": lambda r: f"(request_id={hex_digits(r, 12)})",
        "request id words": lambda r: f"Request ID: {hex_digits(r, 8)}",
        "req": lambda r: f"req_{hex_digits(r, 16)}",
        "trace": lambda r: f"trace {hex_digits(r, 32)}",
        "address": lambda r: f"<Client object at 0x{hex_digits(r, 12)}>",
        "took ms": lambda r: f"after {r.randrange(1, 9000)} ms",
        "took s": lambda r: f"in {r.randrange(1, 900) / 100:.2f}s",
        "seconds": lambda r: f"timed out after {r.randrange(1, 90)}.{r.randrange(10)} seconds",
        "pid": lambda r: f"pid {r.randrange(2, 60000)}",
        "syslog pid": lambda r: f"worker[{r.randrange(2, 60000)}]: gone",
        "port": lambda r: f"127.0.0.1:{r.randrange(32768, 61000)}",
        "temp": lambda r: f"/tmp/tmp{hex_digits(r, 8)}/out",
        "attempt": lambda r: f"attempt {r.randrange(1, 900)}",
        "attempt of": lambda r: f"(attempt {r.randrange(1, 9)}/10)",
    }


FAILURES = (
    "Classification failed - no result",
    "Error: upstream returned nothing",
    "no result",
    "ValueError: text is not in a supported language",
)
WORDS = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "karst", "lagoon",
    "marsh", "north", "otter", "pine", "quartz", "ridge", "shoal", "tundra", "umber", "vale", "willow", "xenon",
    "yarrow", "zephyr",
]  # fmt: skip


def page(rng: random.Random, number: int, lines: int = 4) -> str:
    return "\n".join(f"row {number}-{i}: {rng.choice(WORDS)} {rng.randrange(10_000)}" for i in range(lines))


def work(rng: random.Random, count: int, agent: str = "") -> Iterator[Step]:
    """Healthy steps of mixed kinds, each of which brings something new."""
    for i in range(count):
        word, number = rng.choice(WORDS), rng.randrange(10**6)
        yield rng.choice(
            (
                Step("read_file", {"path": f"src/{word}_{number}.py"}, page(rng, number), agent=agent),
                Step(
                    "search", {"q": f"{word} {number}"}, f"3 hits for {word} {number}: {page(rng, i, 1)}", agent=agent
                ),
                Step("edit", {"path": f"src/{word}.py", "line": number}, "ok", agent=agent),
                Step(
                    "fetch",
                    json.dumps({"url": f"https://example.test/{number}"}),
                    {"id": number, "title": word},
                    agent=agent,
                ),
            )
        )


def healthy_runs(rng: random.Random) -> Iterator[Run]:
    yield from _recovering(rng)
    yield from _waiting(rng)
    yield from _reading(rng)
    yield from _debugging(rng)
    yield from _long(rng)
    yield from _bulk(rng)
    yield from _parallel(rng)
    yield from _conversing(rng)


def _recovering(rng: random.Random) -> Iterator[Run]:
    shapes = list(volatile_shapes().values())
    for failures in (1, 2, 3, 4):
        for failure in FAILURES:
            make = rng.choice(shapes)
            steps = [Step("classify", {"id": 5}, f"{failure} {make(rng)}", False) for _ in range(failures)]
            steps += [Step("classify", {"id": 5}, {"label": rng.choice(WORDS)}), *work(rng, 6)]
            yield Run(f"{failures} failures, then success", steps)
    for rounds in (3, 6):
        steps = []
        for i in range(rounds):
            steps += [Step("fetch", {"url": f"/{i}"}, "503 Service Unavailable", False)] * 3
            steps.append(Step("fetch", {"url": f"/{i}"}, page(rng, i)))
        yield Run("every page comes at the 4th try", steps)
    # Seven times in all is under the threshold for a failure with news between.
    steps = []
    for _ in range(7):
        steps += [Step("push", {"remote": "origin"}, "error: rejected", False), *work(rng, 2)]
    yield Run("seven failures among healthy calls", [*steps, Step("push", {"remote": "origin"}, "pushed"), *steps[:9]])


def _waiting(rng: random.Random) -> Iterator[Run]:
    for stride in (1, 3, 7):
        steps = [Step("check", {"job": 1}, f"running, {p}% done at {clock(rng)}") for p in range(0, 100, stride)]
        yield Run(f"polling with change by {stride}", steps)
    for each in (1, 2, 3, 4):
        steps = [
            Step("check", {"job": 1}, {"state": state, "request_id": hex_digits(rng, 8)})
            for state in ("queued", "starting", "running", "uploading", "cleaning", "done")
            for _ in range(each)
        ]
        yield Run(f"each state seen {each} times", steps)
    for same in (5, 12, 23):
        steps = [Step("get_status", {"job": 1}, {"status": "running", "took_ms": rng.randrange(99)})] * same
        yield Run(
            f"declared poll, {same} times the same",
            [*steps, Step("get_status", {"job": 1}, {"status": "done"})],
            tools=POLL,
        )
    for same in (6, 11):
        steps = []
        for _ in range(same):
            steps += [
                Step("get_status", {"job": 1}, {"status": "running"}),
                Step("wait", {"seconds": 30}, "waited 30 s"),
            ]
        yield Run(
            "declared poll, with waits between",
            [*steps, Step("get_status", {"job": 1}, {"status": "done"})],
            tools=POLL,
        )
    for step in (5, 10):
        steps = [
            Step("call_api", {"id": 9}, f"429: rate limited, retry in {s} seconds", False) for s in range(60, 0, -step)
        ]
        yield Run("waiting out a rate limit", [*steps, Step("call_api", {"id": 9}, "ok"), *work(rng, 5)])
    steps = [Step("build_log", {"build": 3}, f"step {i}/40: {rng.choice(WORDS)}") for i in range(1, 41)]
    yield Run("a log that grows", steps)
    steps = [Step("driver", {"order": 3}, f"your driver is {m} min away") for m in range(30, 0, -2)]
    yield Run("a countdown in minutes", steps)


def _reading(rng: random.Random) -> Iterator[Run]:
    for pages in (8, 30, 120):
        yield Run(f"{pages} numbered pages", [Step("list", {"page": i}, page(rng, i)) for i in range(pages)])
        cursors = [
            Step("list", {"cursor": hex_digits(rng, 12)}, {"rows": [rng.randrange(10**6)], "next": hex_digits(rng, 12)})
            for _ in range(pages)
        ]
        yield Run(f"{pages} pages by cursor", cursors)
        same = [Step("next_page", {}, f"item {i}") for i in range(pages)]
        yield Run(f"{pages} times next_page", same)
    for size in (10, 25):
        items = [
            Step("get_item", {"id": 1000 + i}, {"id": 1000 + i, "name": rng.choice(WORDS), "v": i}) for i in range(size)
        ]
        yield Run(f"{size} items, and all of them checked once more", [*items, *items])
    for size in (6, 14):
        files = [
            Step("read_file", {"path": f"{w}_{i}.py"}, page(rng, i, 30)) for i, w in enumerate(rng.sample(WORDS, size))
        ]
        yield Run(f"{size} files, read twice", [*files, *files, *work(rng, 4)])
    text = f"How to handle an error: first read the log. Failed builds and 'no result' are {rng.choice(WORDS)}"
    for count in (10, 40):
        steps = [Step("search_docs", {"q": f"error {i}"}, f"{text} {i}") for i in range(count)]
        yield Run("documents about errors", steps)
    steps = []
    for i in range(30):
        hit = i % 4 == 3
        steps.append(Step("search", {"q": f"{rng.choice(WORDS)} {i}"}, page(rng, i, 2) if hit else "No results found."))
    yield Run("searches, most without a result", steps)


def _debugging(rng: random.Random) -> Iterator[Run]:
    for first in (7, 12, 20):
        for tail in ("in {:.2f}s", "at 2026-11-21T10:00:{:05.2f}Z", "(pid {:.0f})"):
            steps = []
            for failing in range(first, -1, -1):
                text = f"{failing} failing, {40 - failing} passed {tail.format(rng.uniform(10, 59))}"
                steps += [
                    Step("run_tests", {"path": "tests"}, text, failing == 0),
                    Step("edit", {"path": "main.c", "patch": f"{rng.choice(WORDS)} {rng.randrange(10**6)}"}, "ok"),
                ]
            yield Run(f"{first} failing, one less each time", steps)
        yield Run(
            "tests alone, one less each time", [Step("run_tests", {}, f"{n} failing") for n in range(first, -1, -1)]
        )
    lines = [Step("compile", {"file": "main.c"}, f"main.c:{n}: error: expected ';'", False) for n in range(41, 60)]
    yield Run("the same error, a line further on each time", lines)
    for command, output in (
        ("git status", "nothing to commit"),
        ("git diff --stat", "1 file changed"),
        ("ls", "a.py\nb.py"),
    ):
        steps = []
        for i in range(12):
            steps += [
                Step("bash", {"command": f"sed -i {i}s/x/{rng.choice(WORDS)}{rng.randrange(10**6)}/ a.py"}, f"done {i}")
            ]
            steps += [Step("bash", {"command": command}, output)]
        yield Run(f"{command} after each edit", steps)
    for command in ("git add -A", "ruff check ."):
        steps = []
        for _ in range(14):
            steps += [Step("edit", {"path": "a.py", "text": f"{rng.choice(WORDS)}{rng.randrange(10**6)}"}, "ok")]
            steps += [Step("bash", {"command": command}, "")]
        yield Run(f"{command}, silent after each edit", steps)


def _long(rng: random.Random) -> Iterator[Run]:
    for length, every in ((200, 7), (400, 20), (1000, 40), (300, 3)):
        for again in (
            Step("read_file", {"path": "README.md"}, page(rng, 0, 20)),
            Step("list_inbox", {}, "[]"),
            Step("whoami", {}, "root"),
        ):
            if again.result == "[]" and every < 20:
                continue
            steps = []
            for i, step in enumerate(work(rng, length)):
                steps += [again, step] if i % every == 0 else [step]
            yield Run(f"{length} steps, {again.tool} every {every}", steps)
    for length in (300, 1500):
        yield Run(f"{length} steps of mixed work", list(work(rng, length)))


def _bulk(rng: random.Random) -> Iterator[Run]:
    for result in ("", None, "ok", "null", {}, {"success": True}, "[]", {"results": []}):
        steps = [Step("update", {"id": 10_000 + i * rng.randrange(1, 9)}, result) for i in range(60)]
        yield Run(f"60 updates, each answered {result!r}", steps)
    for error in ("404 Not Found", "error: timeout"):
        steps = [
            Step("fetch", {"url": f"/{i}"}, error if i % 5 == 0 else page(rng, i, 2), i % 5 != 0) for i in range(100)
        ]
        yield Run(f"100 pages, a fifth {error}", steps)
    sums = [(rng.randrange(100), rng.randrange(100)) for _ in range(80)]
    yield Run("sums", [Step("calc", {"expression": f"{a}+{b}"}, a + b) for a, b in dict.fromkeys(sums)])
    path = [Step("move", {"to": [x, y]}, f"at {x},{y}") for x in range(12) for y in range(12)]
    yield Run("a walk over a board", path)


def _parallel(rng: random.Random) -> Iterator[Run]:
    for width in (2, 6, 10):
        steps = [Step("roll", {}, "no result", batch=1, id=f"r{i}") for i in range(width)]
        yield Run(f"{width} equal calls in one answer", [*steps, *work(rng, 5)])
    for width in (15, 30):
        steps = [
            Step("fetch", {"url": f"/{n}/{i}"}, "404 Not Found", False, batch=n, id=f"f{n}-{i}")
            for n in range(3)
            for i in range(width)
        ]
        yield Run(f"3 answers with {width} failing calls each", [*steps, *work(rng, 5)])
    for answers in (3, 4):
        steps = [
            Step("classify", {"id": 1}, "no result", batch=n, id=f"c{n}-{i}") for n in range(answers) for i in range(8)
        ]
        yield Run(
            f"{answers} answers with 8 equal calls each", [*steps, Step("classify", {"id": 1}, "late"), *work(rng, 5)]
        )
    for agents in (3, 10, 60):
        steps = [
            Step("read_file", {"path": "task.md"}, "the task", agent=f"root/{a}")
            for _ in range(4)
            for a in range(agents)
        ]
        yield Run(f"{agents} agents read the same thing", steps)


def _conversing(rng: random.Random) -> Iterator[Run]:
    for turns in (4, 10):
        steps = []
        for _ in range(turns):
            steps += [Step(None), *[Step("get_cart", {}, "empty cart")] * 3]
        yield Run("asked again by the user", steps)
    for turns in (3, 8):
        steps = []
        for _ in range(turns):
            steps += [Step(None), *[Step("get_cart", {}, "Error: no cart", False)] * 4]
        yield Run("failing again, asked again by the user", steps)
    for notes in (6, 30):
        steps = [Step("think", {"thought": f"{rng.choice(WORDS)} {i}"}, "noted") for i in range(notes)]
        yield Run("thinking aloud", steps)
    todo = [
        Step("todo", {"items": [f"{w} {'x' if i < n else '-'}" for i, w in enumerate(WORDS[:15])]}, "saved")
        for n in range(15)
    ]
    yield Run("a list ticked off", todo)


# Families nobody looked at while the detector was written: what the first ones do one by one, together.
