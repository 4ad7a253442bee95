"""The second labelled set, continued: written after the detector was mended for the others; two runs still failed then."""

# ruff: noqa: E501, SIM905 -- one example a line is easier to read
from __future__ import annotations

import random
from collections.abc import Iterator

from rr_loop_field import Done, FieldRun, iso, uuid
from rr_loop_field_loops import repeated

__all__ = ["more_healthy", "more_loops"]


def more_healthy(rng: random.Random) -> Iterator[FieldRun]:
    """Healthy runs."""
    yield FieldRun(
        name="wordle",
        steps=[
            Done(tool="guess", args={"word": w}, result="".join(rng.choice("GY_") for _ in w))
            for w in "crane slate audio pious mount lymph vivid jumbo".split()
        ],
    )
    yield FieldRun(
        name="hangman",
        steps=[
            Done(tool="guess", args={"letter": c}, result=rng.choice(["miss", "hit"])) for c in "etaoinshrdlucmfwyp"
        ],
    )
    yield FieldRun(
        name="maze distinct positions",
        steps=[
            Done(tool="move", args={"dir": rng.choice("NESW")}, result=f"at {rng.randrange(40)},{rng.randrange(40)}")
            for _ in range(100)
        ],
    )
    yield FieldRun(
        name="pixel art", steps=[Done(tool="pixel", args=[x, y], result="ok") for x in range(15) for y in range(15)]
    )
    yield FieldRun(
        name="positional str args",
        steps=[Done(tool="lookup", args=f"SKU-{i:05d}", result="no match") for i in range(60)],
    )
    yield FieldRun(
        name="emails not found",
        steps=[
            Done(
                tool="find_user",
                args={"email": f"{n}@example.com"},
                result={"error": "user not found", "code": 404},
                ok=True,
            )
            for n in "anna bert carl dora emil fred gina hans ida jan karl lena max nina otto paul".split()
        ],
    )
    yield FieldRun(
        name="same 404 w/ status field",
        steps=[
            Done(tool="http_get", args={"url": f"https://x.y/u/{i}"}, result={"status_code": 404, "body": "Not Found"})
            for i in range(40)
        ],
    )
    yield FieldRun(
        name="soft 404 page text",
        steps=[
            Done(tool="crawl", args={"url": f"https://x.y/{n}"}, result="Error: page not found", ok=True)
            for n in "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu".split()
        ],
    )
    yield FieldRun(
        name="validation bulk",
        steps=[
            Done(tool="validate", args={"iban": f"DE{rng.randrange(10**18)}"}, result={"valid": False})
            for i in range(50)
        ],
    )
    yield FieldRun(
        name="file exists checks",
        steps=[
            Done(tool="stat", args={"path": f"/data/{i}.csv"}, result="No such file or directory", ok=False)
            for i in range(50)
        ],
    )
    yield FieldRun(
        name="delete 204",
        steps=[
            Done(tool="http", args={"method": "DELETE", "url": f"/items/{i}"}, result="204 No Content")
            for i in range(40)
        ],
    )
    yield FieldRun(
        name="git log per file",
        steps=[Done(tool="bash", args={"command": f"git log --oneline -- f{i}.py"}, result="") for i in range(60)],
    )
    yield FieldRun(
        name="grep many terms no matches",
        steps=[
            Done(tool="grep", args={"pattern": p, "path": "src/"}, result="No matches found")
            for p in "foo bar baz qux quux corge grault garply waldo fred plugh xyzzy thud wibble".split()
        ],
    )
    yield FieldRun(
        name="grep regex words",
        steps=[
            Done(tool="grep", args={"pattern": p, "path": "src/", "include": "*.py"}, result="No files found")
            for p in [
                "def load",
                "class Loader",
                "load_config",
                "import yaml",
                "yaml.load",
                "read_yaml",
                "ConfigLoader",
                "parse_args",
                "argparse",
                "click.command",
                "typer.run",
                "main()",
                "__main__",
                "entry_points",
            ]
        ],
    )
    yield FieldRun(
        name="test same fail text 7 edits",
        steps=[
            s
            for i in range(7)
            for s in (
                Done(tool="edit", args={"f": "a.py", "t": f"x{i}"}, result="ok"),
                Done(tool="pytest", args={}, result="1 failed: assert 1 == 2", ok=False),
            )
        ],
    )
    yield FieldRun(
        name="second pass write",
        steps=[
            Done(tool="update_row", args={"id": i, "status": st}, result={"ok": True})
            for st in ("open", "closed", "archived")
            for i in range(40)
        ],
    )
    yield FieldRun(
        name="send templated",
        steps=[
            Done(
                tool="send_email",
                args={"to": f"{n}@x.org", "body": "Dear customer, thank you for waiting."},
                result="sent",
            )
            for n in "abcdefghijklmnopqrst"
        ],
    )
    yield FieldRun(
        name="second campaign",
        steps=[
            Done(tool="send_email", args={"to": f"{n}@x.org", "body": b}, result="sent")
            for b in ("Dear customer, thank you for waiting.", "Thank you dear waiting customer, for real.")
            for n in "abcdefghijklmnopqrst"
        ],
    )
    yield FieldRun(
        name="translate",
        steps=[
            Done(tool="translate", args={"text": t, "to": "de"}, result=t)
            for t in ["OK"] + [f"Modell {i}" for i in range(30)]
        ],
    )
    yield FieldRun(
        name="read paged file",
        steps=[
            Done(
                tool="read",
                args={"path": "a.log", "offset": i * 100, "limit": 100},
                result="\n".join(["INFO ok"] * 100),
            )
            for i in range(60)
        ],
    )
    yield FieldRun(
        name="tail identical log lines paged",
        steps=[Done(tool="read", args={"path": "a.log", "offset": i * 100}, result="INFO ok") for i in range(60)],
    )
    yield FieldRun(
        name="sensor", steps=[Done(tool="temp", args={"room": r}, result="21.5") for _ in range(1) for r in range(50)]
    )
    yield FieldRun(name="embedding", steps=[Done(tool="embed", args={"chunk": i}, result=[0.0] * 8) for i in range(50)])
    yield FieldRun(
        name="re-reads interleaved",
        steps=[
            s
            for i in range(60)
            for s in (
                Done(tool="read", args={"p": i % 9}, result=f"doc {i % 9}"),
                Done(tool="write", args={"p": f"o{i}", "t": "x"}, result="ok"),
            )
        ],
    )
    yield FieldRun(
        name="connection refused then ok alternating hosts",
        steps=[
            Done(tool="ping", args={"h": i}, result="connection refused" if i % 3 else f"up {i}", ok=bool(i % 3 == 0))
            for i in range(60)
        ],
    )


def more_loops(rng: random.Random) -> Iterator[FieldRun]:
    """Loops."""
    yield repeated(
        "search rewording long tail",
        lambda i: Done(
            tool="search",
            args={
                "q": f"what is the refund policy of acme corporation {['please', 'now', 'exactly', '2026', 'official', 'in detail', 'for customers', 'online'][i % 8]}"
            },
            result="No results found",
        ),
        due=24,
    )
    yield repeated(
        "html error w/ csrf",
        lambda i: Done(
            tool="get",
            args={"u": 1},
            result=f'<html><input name="csrf" value="{uuid(rng)}">500 Internal Server Error</html>',
            ok=False,
        ),
        due=5,
    )
    yield repeated(
        "json err list",
        lambda i: Done(tool="get", args={"u": 1}, result=[{"error": "x", "trace_id": uuid(rng)}], ok=False),
        due=5,
    )
    yield repeated(
        "rate limit jitter secs",
        lambda i: Done(tool="get", args={"u": 1}, result=f"Rate limited. Took {rng.random():.3f} s", ok=False),
        due=5,
    )
    yield repeated(
        "git push rejects",
        lambda i: Done(
            tool="bash",
            args={"command": "git push"},
            result="! [rejected] main -> main (fetch first)\nerror: failed to push",
            ok=False,
        ),
        due=5,
    )
    yield repeated(
        "memory addr",
        lambda i: Done(tool="py", args={"code": "f()"}, result=f"<function f at 0x7f{rng.getrandbits(40):010x}>"),
        due=5,
    )
    yield repeated(
        "write fails permission many paths",
        lambda i: Done(tool="write_file", args={"path": f"/etc/x{i}"}, result="Permission denied", ok=False),
        due=10,
    )
    yield repeated(
        "model not found infra",
        lambda i: Done(tool="llm", args={"prompt": f"p{i}"}, result="404 model not found", ok=False),
        due=10,
    )
    yield repeated(
        "command not found",
        lambda i: Done(tool="bash", args={"command": f"foo --x {i}"}, result="bash: foo: command not found", ok=False),
        due=10,
    )
    yield repeated("sleep only", lambda i: Done(tool="sleep", args={"s": 5}, result="slept 5s"), due=5)
    yield repeated(
        "poll+sleep unchanged",
        lambda i: (
            Done(tool="sleep", args={"s": 5}, result="ok")
            if i % 2
            else Done(tool="status", args={}, result=f"pending as of {iso(rng)}")
        ),
        due=10,
    )
    yield repeated("list empty w/ args", lambda i: Done(tool="list", args={"dir": "/x"}, result=[]), due=5)
    yield repeated("noargs empty among reads never", lambda i: Done(tool="inbox", args={}, result=[]), due=5)
