"""The second labelled set: loops, each with the last tool result that it may execute."""

# ruff: noqa: E501 -- one example a line is easier to read
from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator

from rr_loop_field import Done, FieldRun, iso, uuid

__all__ = ["loops", "repeated"]

LENGTH = 120


def repeated(name: str, make: Callable[[int], Done], *, due: int, before: int = 0) -> FieldRun:
    """The loop of `make` behind some healthy steps; `due` counts from its beginning."""
    calm = [Done(tool="read", args={"path": f"p{i}"}, result=f"content number {i}") for i in range(before)]
    return FieldRun(name=name, steps=[*calm, *(make(i) for i in range(LENGTH))], begins=before + 1, due=before + due)


def _volatile_errors(rng: random.Random) -> Iterator[FieldRun]:
    def hexes(n: int) -> str:
        return f"{rng.getrandbits(4 * n):0{n}x}"

    texts: dict[str, Callable[[int], object]] = {
        "stack addresses": lambda _: f"Traceback (most recent call last):\n  <Foo object at 0x{hexes(12)}>\nKeyError: 'x'",
        "segfault address": lambda _: f"Segmentation fault at address 0x{hexes(8)}",
        "temp path": lambda _: f"cannot open /tmp/tmp{hexes(8)}/in.csv: permission denied",
        "mac temp path": lambda _: f"cannot open /var/folders/ab/{hexes(24)}/T/tmp{hexes(6)}: denied",
        "port": lambda _: f"connect to 127.0.0.1:{rng.randrange(40000, 60000)} failed: connection refused",
        "uuid": lambda _: f"Job {uuid(rng)} failed: quota",
        "json request id": lambda _: {"error": {"message": "bad gateway", "request_id": f"req_{hexes(16)}"}},
        "json text request id": lambda _: f'{{"error": "bad gateway", "requestId": "{uuid(rng)}", "took_ms": {rng.randrange(999)}}}',
        "html nonce": lambda _: f'<html><body><script nonce="{base64.b64encode(rng.randbytes(16)).decode()}"></script>502 Bad Gateway</body></html>',
        "cloudflare ray": lambda _: f"<title>Access denied</title> Cloudflare Ray ID: {hexes(16)} • Your IP: 10.0.0.1",
        "german": lambda _: f"Fehler: Verbindung abgelehnt um {rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}",
        "russian": lambda _: f"Ошибка: соединение сброшено ({iso(rng)})",
        "japanese": lambda _: f"エラー：接続が拒否されました [{iso(rng)}] 所要 {rng.randrange(999)} ms",
        "emoji": lambda _: f"❌ Failed 💥 after {rng.randrange(1, 9)}.{rng.randrange(10)}s 🚨",
        "pid": lambda _: f"worker[{rng.randrange(1000, 9999)}]: out of memory",
        "epoch": lambda _: f"lock held since {1_790_000_000 + rng.randrange(10**6)}",
        "epoch ms": lambda i: {"error": "locked", "timestamp": 1_790_000_000_000 + i * 1000},
        "trace": lambda _: f"500 Internal Server Error (trace_id={hexes(32)})",
        "aws": lambda _: f"An error occurred (AccessDenied) when calling GetObject: RequestId: {hexes(16).upper()}, HostId: {hexes(40)}",
        "ansi": lambda _: f"\x1b[31merror\x1b[0m: build failed in {rng.randrange(9)}.{rng.randrange(100)}s",
        "syslog": lambda i: f"Nov 21 10:{i % 60:02d}:{rng.randrange(60):02d} host sshd[{rng.randrange(9999)}]: auth failure",
        "rfc date": lambda _: f"Sat, 21 Nov 2026 10:{rng.randrange(60):02d}:{rng.randrange(60):02d} GMT: upstream error",
        "apache date": lambda _: f"[21/Nov/2026:10:{rng.randrange(60):02d}:{rng.randrange(60):02d} +0000] upstream error",
        "attempt counter": lambda i: f"attempt {i + 1} of 891 failed",
        "thread": lambda _: f"Exception in thread Thread-{rng.randrange(100)}: dead",
        "java hash": lambda _: f"java.lang.IllegalState: com.acme.Pool@{hexes(8)} is closed",
        "base64 nonce": lambda _: f"denied; nonce={base64.b64encode(rng.randbytes(18)).decode()}",
        "ulid": lambda _: f"error 01J{''.join(rng.choice('0123456789ABCDEFGHJKMNPQRSTVWXYZ') for _ in range(23))}: upstream gone",
        "white space": lambda i: "boom" + " " * (i % 7) + "\n" * (i % 3),
    }  # fmt: skip
    for name, text in texts.items():
        yield repeated(
            f"error with {name}", lambda i, text=text: Done(tool="job", args={"id": 7}, result=text(i), ok=False), due=5
        )
        yield repeated(
            f"late, ok, {name}", lambda i, text=text: Done(tool="job", args={"id": 7}, result=text(i)), due=5, before=60
        )


def _volatile_arguments(rng: random.Random) -> Iterator[FieldRun]:
    def failing(
        name: str, make: Callable[[int], object], *, due: int = 5, result: object = "no result", ok: bool = True
    ) -> FieldRun:
        return repeated(
            f"arguments: {name}", lambda i: Done(tool="classify", args=make(i), result=result, ok=ok), due=due
        )

    yield failing("nested request id", lambda _: {"id": 3, "meta": {"request_id": uuid(rng), "ts": iso(rng)}})
    yield failing(
        "json text", lambda i: f'{{"attempt": {i}, "id": 3}}' if i % 2 else f'{{ "id": 3.0, "attempt": {i} }}'
    )
    yield failing("order, case, space", lambda i: {"a": "X  y", "b": 1} if i % 2 else {"b": 1.0, "a": " x Y "})
    yield failing("nulls", lambda i: {"id": 3} if i % 2 else {"id": 3, "page": None})
    yield failing("thought inside", lambda i: {"id": 3, "thought": f"try number {i} now"})
    yield failing("timestamps", lambda _: {"id": 3, "timestamp": iso(rng)})
    yield failing("epoch", lambda i: {"id": 3, "ts": 1_790_000_000 + i})
    yield failing("described command", lambda i: {"command": "make", "description": f"Build it once more, way {uuid(rng)}"},
                  result="make: *** no rule", ok=False)  # fmt: skip
    yield failing(
        "timestamp in free text",
        lambda _: {"query": f"status as of {iso(rng)}"},
        due=10,
        result="error: backend down",
        ok=False,
    )
    words = ["refund", "policy", "acme", "order", "return"]

    def reworded(_: int) -> object:
        chosen = rng.sample(words, 4)
        return {"query": " ".join(chosen)}

    yield failing("reworded, known words", reworded, due=24)
    extra = ["please", "the", "exact", "current", "official", "find", "latest", "full", "again", "details", "info", "text",
             "about", "for", "page", "document", "site", "online", "now", "2025"]  # fmt: skip
    yield failing(
        "reworded, one more word each time",
        lambda i: {"query": f"acme refund policy for orders {extra[i % 20]}"},
        due=24,
    )
    yield failing("other thought outside", lambda _: {"q": "acme"}, result=[])


def _shapes(rng: random.Random) -> Iterator[FieldRun]:
    for size in range(2, 6):
        yield repeated(f"cycle of {size} failing calls",
                      lambda i, size=size: Done(tool=f"t{i % size}", args={"k": i % size}, result=f"error {chr(97 + i % size)}", ok=False),
                      due=5 * size, before=9)  # fmt: skip
        yield repeated(f"cycle of {size} good calls",
                      lambda i, size=size: Done(tool="look", args={"at": "abcde"[i % size]}, result=f"view of {'abcde'[i % size]} at {iso(rng)}"),
                      due=5 * size, before=9)  # fmt: skip
    yield repeated("read, fail, read, fail", lambda i: Done(tool="read", args={"p": "a"}, result="text") if i % 2 else
                  Done(tool="apply", args={"p": "a"}, result="patch does not apply", ok=False), due=10)  # fmt: skip
    yield repeated("failure with healthy new reads between", lambda i: Done(tool="read", args={"p": i}, result=f"text {i}") if i % 2 else
                  Done(tool="apply", args={"p": "a"}, result="patch does not apply", ok=False), due=16)  # fmt: skip
    yield repeated("soft failure with two new reads between", lambda i: Done(tool="read", args={"p": i}, result=f"text {i}") if i % 3 else
                  Done(tool="classify", args={"p": "a"}, result="no result"), due=24)  # fmt: skip
    yield repeated("same write", lambda _: Done(tool="write", args={"path": "a", "text": "x"}, result="ok"), due=5)
    yield repeated("empty string", lambda _: Done(tool="classify", args={"id": 1}, result=""), due=5)
    yield repeated("null", lambda _: Done(tool="classify", args={"id": 1}, result=None), due=5)
    yield repeated(
        "undeclared poll without change", lambda _: Done(tool="status", args={}, result=f"pending ({iso(rng)})"), due=5
    )
    yield repeated(
        "same search, other thought",
        lambda _: Done(tool="search", args={"q": "x"}, result="1. result\n2. result"),
        due=5,
        before=200,
    )
    yield repeated(
        "batches of three",
        lambda i: Done(tool="get", args={"id": i % 3}, result="timeout", ok=False, batch=i // 3),
        due=15,
    )
    yield repeated(
        "batches of the same",
        lambda i: Done(tool="get", args={"id": 1}, result="timeout", ok=False, batch=i // 4),
        due=20,
    )
    yield repeated(
        "sub-agent",
        lambda _: Done(tool="get", args={"id": 1}, result="timeout", ok=False, agent="root/a"),
        due=5,
        before=30,
    )
    yield repeated(
        "two sub-agents in turn",
        lambda i: Done(tool="get", args={"id": 1}, result="timeout", ok=False, agent=f"root/{i % 2}"),
        due=9,
    )
    yield repeated(
        "tool names change",
        lambda i: Done(tool=f"search{'_' * (i % 4)}v{i % 4}", args={"q": "x"}, result="error: backend down", ok=False),
        due=20,
    )
    for said in ("connection refused", "503 Service Unavailable", "permission denied", "Fehler: Dienst nicht erreichbar",
                 "invalid api key", "rate limit exceeded", "tool is not registered", "HTTP 401 Unauthorized", "timeout"):  # fmt: skip
        yield repeated(f"other inputs, same infrastructure error: {said}",
                      lambda i, said=said: Done(tool="fetch", args={"id": f"T-{i}"}, result=said, ok=False), due=10, before=5)  # fmt: skip
    yield repeated(
        "other inputs, soft infrastructure error",
        lambda i: Done(tool="fetch", args={"id": i}, result="Error: connection refused"),
        due=10,
    )
    yield repeated(
        "two endpoints that are down",
        lambda i: Done(tool=("get", "put")[i % 2], args={"id": i}, result="ECONNREFUSED", ok=False),
        due=10,
    )
    yield repeated(
        "known pages again in any order",
        lambda _: Done(tool="look", args={"at": rng.choice("abcde")}, result="view"),
        due=40,
    )


def loops(seed: int) -> list[FieldRun]:
    """Every loop."""
    rng = random.Random(seed)
    return [run for family in (_volatile_errors, _volatile_arguments, _shapes) for run in family(rng)]
