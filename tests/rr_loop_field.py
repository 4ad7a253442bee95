"""
A second labelled set, written from how agents of many trades work and without the corpus at hand: healthy runs.

The loops are in `rr_loop_field_loops`, more of both in `rr_loop_field_more`. The detector has been mended for what failed
here, so that it is a set of regressions by now and says nothing about runs that nobody has seen. Volatile values come
from the seed.
"""

# ruff: noqa: E501, S608 -- one example a line is easier to read; the SQL is never run
from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from runrails.calls import Block, Proceed, Stop, ToolCall, ToolOutcome
from runrails.loops import LoopDetector, ToolRule

__all__ = ["Done", "FieldRun", "healthy", "iso", "judge", "uuid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One tool result; without a tool, a person's message."""

    tool: str = ""
    args: object = None
    result: object = "ok"
    ok: bool = True
    batch: int | None = None
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRun:
    """A run. `begins`: the tool result, from 1, where a loop begins; `due`: the last one it may execute."""

    name: str
    steps: list[Done]
    begins: int | None = None
    due: int | None = None
    rules: Mapping[str, ToolRule] = field(default_factory=dict[str, ToolRule])


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the detector said, each the number of a tool result."""

    stop_at: int | None
    hints: list[int]
    rule: str | None


def judge(run: FieldRun, *, can_block: bool = False) -> Judged:
    """Replay a run; with `can_block`, a block counts as the stop."""
    detector = LoopDetector(tools=run.rules)
    hints: list[int] = []
    number = 0
    for index, step in enumerate(run.steps):
        if not step.tool:
            detector.user_message(step.agent)
            continue
        number += 1
        call = ToolCall(name=step.tool, args=step.args, id=f"c{index}", batch=step.batch, agent=step.agent)
        verdict = detector.before_tool(call, can_block=can_block)
        if isinstance(verdict, Stop | Block):
            return Judged(stop_at=number, hints=hints, rule=verdict.finding.rule)
        assert isinstance(verdict, Proceed)
        found = detector.after_tool(call, ToolOutcome(ok=step.ok, result=step.result), can_block=can_block)
        if found is not None and found.level == "stop":
            return Judged(stop_at=number, hints=hints, rule=found.rule)
        if found is not None:
            hints.append(number)
    return Judged(stop_at=None, hints=hints, rule=None)


def iso(rng: random.Random) -> str:
    """A moment of a day in 2026."""
    return (
        f"2026-11-21T{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}.{rng.randrange(1000):03d}Z"
    )


def uuid(rng: random.Random) -> str:
    """A UUID."""
    text = f"{rng.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


_NAMES = [
    f"{first} {last}"
    for first in ("Ana", "Bert", "Chloé", "Dmitri", "Eun-ji", "Farid", "Giulia", "Håkon")
    for last in ("Kim", "Müller", "Okafor", "Петров", "Sato", "Silva")
]


def _coding(rng: random.Random) -> Iterator[FieldRun]:
    steps: list[Done] = []
    for i in range(30):
        steps += [
            Done(tool="edit_file", args={"path": f"src/m{i % 4}.py", "old": f"a{i}", "new": f"b{i}"}, result="ok"),
            Done(tool="bash", args={"command": "npx tsc --noEmit"}, result=""),
            Done(tool="bash", args={"command": "git add -A"}, result=""),
            Done(
                tool="bash",
                args={"command": f"git commit -m 'step {i}'"},
                result=f"[main {rng.getrandbits(28):07x}] step {i}",
            ),
            Done(tool="bash", args={"command": "git status --short"}, result=""),
        ]
    yield FieldRun(name="thirty commits with silent compiler and git add", steps=steps)
    steps = []
    for i in range(25):
        steps.append(
            Done(tool="edit", args={"file": "app.ts", "new_text": f"const v{i} = {i}"}, result="Edited app.ts")
        )
        steps.append(Done(tool="get_diagnostics", args={"file": "app.ts"}, result=[]))
    yield FieldRun(name="clean diagnostics after every edit", steps=steps)
    steps = []
    for i in range(20):
        steps.append(Done(tool="write", args={"path": f"f{i}.py", "text": f"x{i} = {i}"}, result="ok"))
        steps.append(Done(tool="run_linter", args={}, result="(no output)"))
    yield FieldRun(name="linter without output", steps=steps)
    commands = ["mkdir -p out", "cp a out", "mv b out", "chmod +x run", "touch log", "rm -rf old", "ln -s x y",
                "git add .", "export A=1", "cd out", "sed -i s/a/b/ f", "tar xf t.tar", "git stash", "unzip -q z"]  # fmt: skip
    for said in ("(no output)", "", "Tool ran without output or errors", "No output."):
        yield FieldRun(name=f"silent commands in a row: {said!r}",
                       steps=[Done(tool="bash", args={"command": c}, result=said) for c in commands])  # fmt: skip
    steps = []
    for left in range(14, 0, -1):
        steps.append(Done(tool="edit", args={"file": "a.py", "diff": f"@@ -{left} fix"}, result="ok"))
        steps.append(
            Done(
                tool="pytest",
                args={"path": "tests"},
                result=f"{left} failed, {40 - left} passed in 3.{left}s",
                ok=False,
            )
        )
    yield FieldRun(name="failures shrink", steps=steps)
    steps = []
    for line in range(12, 31):
        steps.append(Done(tool="edit", args={"file": "a.c", "line": line}, result="ok"))
        steps.append(Done(tool="make", args={}, result=f"a.c:{line}:5: error: expected ';'", ok=False))
    yield FieldRun(name="compile error moves down", steps=steps)
    steps = [
        Done(tool="read_file", args={"path": f"src/f{i}.py"}, result=f"import os\ndef f{i}():\n    return {i}\n")
        for i in range(45)
    ]
    yield FieldRun(name="second look at 45 files before the answer", steps=steps + steps)
    steps = []
    for i in range(9):
        steps.append(Done(tool="run_test", args={"name": "test_net"}, result="FAILED test_net: timeout", ok=False))
        steps.append(
            Done(tool="run_test", args={"name": "test_net"}, result=f"PASSED test_net ({i} retries left in pool)")
        )
        steps.append(Done(tool="edit", args={"file": "net.py", "text": f"sleep({i})"}, result="ok"))
    yield FieldRun(name="flaky test with edits between", steps=steps)
    steps = []
    for _ in range(3):
        steps.append(Done(tool="pip_install", args={"package": "numpy"}, result="error: network unreachable", ok=False))
    steps.append(Done(tool="pip_install", args={"package": "numpy"}, result="Successfully installed numpy-2.1"))
    yield FieldRun(name="three failures then success", steps=steps)


def _browser(rng: random.Random) -> Iterator[FieldRun]:
    steps: list[Done] = []
    for i in range(25):
        steps.append(Done(tool="press_key", args={"key": "PageDown"}, result=None))
        steps.append(
            Done(tool="snapshot", args={}, result=f"<main>article {i} by {rng.choice(_NAMES)}, part {i * 3}</main>")
        )
    yield FieldRun(name="page down and look", steps=steps)
    steps = []
    for i in range(20):
        steps.append(Done(tool="click", args={"selector": "#next"}, result={"success": True}))
        steps.append(Done(tool="wait", args={"ms": 500}, result="done"))
        steps.append(Done(tool="screenshot_text", args={}, result=f"Results {i * 10 + 1}-{i * 10 + 10} of 203"))
    yield FieldRun(name="click through result pages", steps=steps)
    steps = [
        Done(tool="check_link", args={"url": f"https://example.org/docs/{n}"}, result="404 Not Found", ok=False)
        for n in range(40)
    ]
    yield FieldRun(name="link checker on a dead section", steps=steps)
    steps = [Done(tool="type_text", args={"field": f, "text": t}, result="ok") for f in ("first", "last", "street", "city")
             for t in ("a", "b", "c", "d", "e")]  # fmt: skip
    yield FieldRun(name="form fields tried with values", steps=steps)


def _data(rng: random.Random) -> Iterator[FieldRun]:
    yield FieldRun(name="limit and offset", steps=[
        Done(tool="sql", args={"query": f"SELECT * FROM t LIMIT 50 OFFSET {50 * i}"}, result=[{"id": 50 * i, "v": rng.random()}])
        for i in range(60)])  # fmt: skip
    yield FieldRun(name="cursor pages with equal rows", steps=[
        Done(tool="list_events", args={"cursor": f"{rng.getrandbits(64):x}"}, result={"events": ["login", "logout"], "next": f"{i}"})
        for i in range(60)])  # fmt: skip
    yield FieldRun(name="ids looked up in a table that has none of them", steps=[
        Done(tool="sql", args={"query": f"SELECT * FROM blocked WHERE id = {rng.randrange(10**6)}"}, result="0 rows returned")
        for _ in range(60)])  # fmt: skip
    steps: list[Done] = []
    for page in range(12):
        for _ in range(rng.randrange(4)):
            steps.append(Done(tool="fetch", args={"page": page}, result="429 Too Many Requests", ok=False))
            steps.append(Done(tool="sleep", args={"seconds": 5}, result="slept"))
        steps.append(Done(tool="fetch", args={"page": page}, result={"rows": [page, rng.random()]}))
    yield FieldRun(name="429 with waits, then success", steps=steps)
    yield FieldRun(
        name="digits alone move", steps=[Done(tool="count_rows", args={}, result=f"{100 + i} rows") for i in range(60)]
    )
    yield FieldRun(name="the date alone moves", steps=[
        Done(tool="next_open_day", args={}, result=f"2026-{1 + i // 28:02d}-{1 + i % 28:02d}") for i in range(60)])  # fmt: skip
    yield FieldRun(name="seconds of seconds done", steps=[
        Done(tool="transcription", args={"job": 4}, result=f"transcribed {10 * i}s of 600s") for i in range(50)])  # fmt: skip
    yield FieldRun(name="position in a film", steps=[
        Done(tool="encoder", args={"job": 4}, result=f"position 00:{i:02d}:00 of 01:30:00") for i in range(50)])  # fmt: skip
    yield FieldRun(name="bytes of a download", steps=[
        Done(tool="download", args={"id": 1}, result={"state": "running", "bytes": 1_500_000_000 + i * 9_000_000}) for i in range(40)])  # fmt: skip
    yield FieldRun(name="bytes in words", steps=[
        Done(tool="download", args={"id": 1}, result=f"{1_500_000_000 + i * 9_000_000} bytes so far") for i in range(40)])  # fmt: skip
    yield FieldRun(name="frames of a film with nothing in them", steps=[
        Done(tool="detect", args={"video": "v.mp4", "timestamp": i * 0.5}, result="no objects detected") for i in range(60)])  # fmt: skip
    yield FieldRun(name="versions", steps=[
        Done(tool="latest", args={"package": "left-pad"}, result=f"1.{i}.0") for i in range(40)])  # fmt: skip
    yield FieldRun(name="grid filled cell by cell", steps=[
        Done(tool="set_cell", args={"row": r, "col": c, "value": (r + c) % 3}, result="ok") for r in range(12) for c in range(12)])  # fmt: skip
    yield FieldRun(name="small sums", steps=[
        Done(tool="calculator", args={"expression": f"{a}{op}{b}"}, result=eval(f"{a}{op}{b}"))  # noqa: S307 -- of ours
        for a in range(1, 7) for b in range(1, 7) for op in "+-*"])  # fmt: skip
    yield FieldRun(name="lengths of words", steps=[
        Done(tool="python", args={"code": f"len('{'x' * i}')"}, result=str(i)) for i in range(60)])  # fmt: skip


def _support(rng: random.Random) -> Iterator[FieldRun]:
    for said, ok in (("not found", True), ("Order not found", True), ("404 Not Found", False), ("No results found.", True),
                     ({"error": "not_found"}, True), ({"results": []}, True), ("[]", True), (None, True),
                     ("Customer does not exist", False), ("No records found", True), ("HTTP 404: order not found", False),
                     ("already exists", False), ({"found": False}, True), ("Unknown customer id", False)):  # fmt: skip
        yield FieldRun(name=f"bulk of 60 ids that give {said!r}", steps=[
            Done(tool="find_order", args={"ticket_id": f"T-{rng.randrange(10**6)}", "lang": "en"}, result=said, ok=ok)
            for _ in range(60)])  # fmt: skip
    yield FieldRun(name="names looked up in a list of blocked people", steps=[
        Done(tool="screen", args={"name": name}, result="no match") for name in _NAMES])  # fmt: skip
    yield FieldRun(name="unrelated searches without a result", steps=[
        Done(tool="search", args={"query": q}, result="No results found")
        for q in ("population of Lagos in 1950", "tallest lighthouse Estonia", "Kaffeehaus Wien Öffnungszeiten",
                  "quantum dot solar cost", "東京 天気 明日", "inventor zipper patent number", "Bolivian navy ships",
                  "marathon world record splits", "sourdough hydration altitude", "Napoleon height myth source",
                  "Rust borrow checker history", "cheapest flight Oslo Lima", "mango cultivars Kerala",
                  "Шостакович симфония премьера", "Antarctic treaty signatories", "violin varnish chemistry")])  # fmt: skip
    steps: list[Done] = []
    for i in range(200):
        empty = rng.random() < 0.2
        steps.append(
            Done(
                tool="classify",
                args={"review_id": i},
                result="" if empty else rng.choice(("positive", "negative", "mixed")),
            )
        )
    yield FieldRun(name="200 reviews, a fifth without a class", steps=steps)
    yield FieldRun(name="200 reviews, all of one class", steps=[
        Done(tool="classify", args={"review_id": i}, result="positive") for i in range(200)])  # fmt: skip
    items = [f"T-{n}" for n in range(40)]
    yield FieldRun(name="three tools over the same forty tickets", steps=[
        Done(tool=tool, args={"ticket_id": item}, result="ok") for tool in ("assign", "label", "notify") for item in items])  # fmt: skip
    yield FieldRun(name="users times roles", steps=[
        Done(tool="grant", args={"user": name, "role": role}, result=f"Granted {role} to {name}.")
        for role in ("reader", "writer", "admin") for name in _NAMES])  # fmt: skip
    yield FieldRun(name="users times rights, asked", steps=[
        Done(tool="may", args={"user": name, "right": right}, result=rng.choice(("yes", "no")))
        for right in ("read", "write", "delete") for name in _NAMES])  # fmt: skip
    steps = []
    for i in range(40):
        steps.append(Done(tool="inbox", args={}, result={"items": [], "total": 0}))
        steps.append(
            Done(tool="research", args={"topic": f"topic {i} {uuid(rng)}"}, result=f"finding {i}: {rng.choice(_NAMES)}")
        )
        steps.append(Done(tool="add_note", args={"text": f"note on topic {i}"}, result="ok"))
    yield FieldRun(name="empty inbox looked at between work", steps=steps)
    yield FieldRun(
        name="notes",
        steps=[
            Done(tool="memory_add", args={"text": f"{rng.choice(_NAMES)} likes {i}"}, result="ok") for i in range(80)
        ],
    )
    names = ["write tests", "fix bug", "update docs", "release", "announce", "tidy up", "archive", "review"]
    yield FieldRun(name="to-do list ticked off", steps=[
        step
        for i in range(len(names) + 1)
        for step in (
            Done(tool="todo_write", args={"todos": [{"content": n, "status": "done" if j < i else "open"} for j, n in enumerate(names)]}, result="ok"),
            Done(tool="todo_write", args={"todos": [{"content": n, "status": "done" if j < i else "active" if j == i else "open"} for j, n in enumerate(names)]}, result="ok"),
        )])  # fmt: skip
    agents = [f"root/worker-{i}" for i in range(70)]
    yield FieldRun(name="many sub-agents with the same question each", steps=[
        Done(tool="load_config", args={}, result="config not found", ok=False, agent=agent) for _ in range(3) for agent in agents])  # fmt: skip
    yield FieldRun(name="parallel lookups, ten equal ones an answer", steps=[
        Done(tool="ping", args={"host": f"h{b}"}, result="no answer", batch=b) for b in range(20) for _ in range(10)])  # fmt: skip


def _operations(rng: random.Random) -> Iterator[FieldRun]:
    yield FieldRun(name="declared poll that waits", rules={"deploy_status": ToolRule(poll=True)}, steps=[
        *(Done(tool="deploy_status", args={"id": 7}, result="in progress") for _ in range(20)),
        Done(tool="deploy_status", args={"id": 7}, result="live")])  # fmt: skip
    yield FieldRun(name="declared poll with sleeps", rules={"deploy_status": ToolRule(poll=True)}, steps=[
        step for _ in range(20)
        for step in (Done(tool="deploy_status", args={}, result={"state": "pending", "checked_at": iso(rng)}),
                     Done(tool="sleep", args={"seconds": 30}, result="slept"))])  # fmt: skip
    yield FieldRun(name="undeclared poll whose percentage moves", steps=[
        step for i in range(40)
        for step in (Done(tool="rollout", args={}, result=f"{i} of 40 pods ready ({iso(rng)})"),
                     Done(tool="sleep", args={"seconds": 30}, result="slept"))])  # fmt: skip
    yield FieldRun(name="heartbeat between work", steps=[
        step for i in range(100)
        for step in (Done(tool="heartbeat", args={}, result="ok"), Done(tool="work", args={"item": i}, result=f"made {i}"))])  # fmt: skip
    yield FieldRun(name="clock between work", steps=[
        step for i in range(60)
        for step in (Done(tool="now", args={}, result=iso(rng)), Done(tool="log", args={"line": f"event {i}"}, result=None))])  # fmt: skip
    yield FieldRun(name="queue drained", steps=[
        step for i in range(60)
        for step in (Done(tool="take", args={}, result={"job_id": uuid(rng)}), Done(tool="run_job", args={"id": uuid(rng)}, result="ok"))])  # fmt: skip
    yield FieldRun(name="queue drained by event id", steps=[
        Done(tool="next_event", args={}, result={"event_id": i, "kind": "click"}) for i in range(60)])  # fmt: skip
    yield FieldRun(name="hosts checked, all down in their own way", steps=[
        Done(tool="ping", args={"host": f"10.0.3.{i}"}, result=f"10.0.3.{i}: no route to host", ok=False) for i in range(60)])  # fmt: skip


def _long(rng: random.Random) -> Iterator[FieldRun]:
    for size in (500, 2_000, 5_000):
        steps: list[Done] = []
        for i in range(size // 4):
            steps.append(
                Done(
                    tool="read_file",
                    args={"path": f"src/{rng.randrange(150)}.py"},
                    result=f"line {rng.randrange(40)}\nend\n",
                )
            )
            steps.append(
                Done(
                    tool="grep",
                    args={"pattern": f"sym_{i}"},
                    result=rng.choice(("No matches found", f"a.py:{i}: sym_{i}")),
                )
            )
            steps.append(Done(tool="write", args={"path": f"out/{i % 60}.txt", "text": f"v{i}"}, result="ok"))
            steps.append(
                Done(
                    tool="shell",
                    args={"cmd": rng.choice(("git status", "git diff --stat", "make -s"))},
                    result=rng.choice(("", "", " M a.py")),
                )
            )
        yield FieldRun(name=f"{size} healthy steps with reads again", steps=steps)
    steps = []
    for i in range(150):
        steps.append(Done(tool="bash", args={"command": f"python step_{i}.py"}, result=f"wrote part {i}"))
        steps.append(Done(tool="save_checkpoint", args={}, result=None))
        steps.append(Done(tool="bash", args={"command": "df -h /data"}, result=f"/data {i % 7}% used"))
    yield FieldRun(name="checkpoint saved 150 times", steps=steps)
    steps = []
    for hour in range(40):
        steps.append(
            Done(
                tool="alerts",
                args={"severity": "high"},
                result="No alerts found" if hour % 9 else f"1 alert: disk {hour}",
            )
        )
        steps += [Done(tool="task", args={"n": hour * 20 + j}, result=f"did {hour * 20 + j}") for j in range(14)]
    yield FieldRun(name="rare look for alerts in a long run", steps=steps)


_FAMILIES: tuple[Callable[[random.Random], Iterator[FieldRun]], ...] = (
    _coding,
    _browser,
    _data,
    _support,
    _operations,
    _long,
)


def healthy(seed: int) -> list[FieldRun]:
    """Every healthy run."""
    rng = random.Random(seed)
    return [run for family in _FAMILIES for run in family(rng)]
