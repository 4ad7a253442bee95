"""
Recorded runs, replayed through the loop detector and the price book: where would the guard have stepped in?

>>> from runrails.audit import audit_lines
>>> [answer] = audit_lines(['{"id": "r1", "steps": [{"kind": "tool", "name": "f", "ok": true, "output": 1}]}'])
>>> answer.as_json()
'{"id": "r1", "verdict": "ok", "hint_at": null, "block_at": null, "stop_at": null, "rule": null, "tool": null, \
"tokens": null, "cost_usd": null, "avoided_usd": null}'
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from runrails.audit.checks import Invalid
from runrails.audit.cost import FindCard, add_up, card_finder
from runrails.audit.lines import LINE_BYTES_MAX, Readable, packed_as, read_lines, text_of
from runrails.audit.records import parse_line
from runrails.audit.replay import replay
from runrails.audit.verdict import BadInput, RunAudit
from runrails.loops import LoopPolicy, ToolRule
from runrails.pricing.book import PriceBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from runrails.audit.recording import Recording

__all__ = ["Answer", "Auditor", "BadInput", "RunAudit", "audit_file", "audit_lines"]

Answer: TypeAlias = RunAudit | BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """
    How recordings are judged.

    Args:
        find_card: Finds the price of a model, see `Auditor.at`.
        policy: The loop detector's thresholds.
        poll_tools: Tools that wait for something in every run, besides those that a run names itself.
        tools: Rules of single tools, as a guard has them.
        line_bytes_max: Longer lines are refused.
    """

    find_card: FindCard
    policy: LoopPolicy = field(default_factory=LoopPolicy)
    poll_tools: frozenset[str] = frozenset()
    line_bytes_max: int = LINE_BYTES_MAX
    tools: Mapping[str, ToolRule] = field(default_factory=dict[str, ToolRule])

    @classmethod
    def at(
        cls,
        now_ms: int,
        *,
        prices: PriceBook | None = None,
        poll_tools: Iterable[str] = (),
        tools: Mapping[str, ToolRule] | None = None,
    ) -> Auditor:
        """An auditor with the prices of a moment: recordings do not say when they were made."""
        book = PriceBook.load() if prices is None else prices
        found = card_finder(book, now_ms=now_ms)
        return cls(find_card=found, poll_tools=frozenset(poll_tools), tools=dict(tools or {}))

    def stream(self, stream: Readable, *, source: str) -> Iterator[Answer]:
        """
        One answer for every line of an open binary file, as it is read.

        A device that fails in the middle ends the answers with a `BadInput`.
        """
        try:
            yield from self.lines(read_lines(stream, line_bytes_max=self.line_bytes_max), source=source)
        except OSError as exc:
            yield _unreadable(source, exc)

    def lines(self, lines: Iterable[bytes | str], *, source: str) -> Iterator[Answer]:
        """One answer for every line that is not blank. An id may be used once."""
        seen: dict[str | int, int] = {}
        for place, line in enumerate(lines, start=1):
            if place == 1 and (packed := packed_as(line)) is not None:
                # Every line of it would be a complaint of its own.
                yield BadInput(source=source, line=1, what=f"This is {packed}.", fix="Unpack it first.")
                return
            try:
                answer = self._answer(line, place, seen)
            except Invalid as exc:
                yield BadInput(source=source, line=place, what=exc.what, fix=exc.fix)
            else:
                if answer is not None:
                    yield answer

    def judge(self, recording: Recording) -> RunAudit:
        """The answer to one recorded run."""
        tools = {**self.tools, **{name: ToolRule(poll=True) for name in self.poll_tools | recording.poll_tools}}
        heard = replay(recording.steps, policy=self.policy, tools=tools)
        spent = add_up(recording.steps, self.find_card, steps_before_stop=heard.steps_before_stop)
        return RunAudit(
            id=recording.id,
            hint_at=heard.hint_at,
            block_at=heard.block_at,
            stop_at=heard.stop_at,
            rule=heard.rule,
            tool=heard.tool,
            tokens=spent.tokens,
            cost_pusd=spent.cost_pusd,
            avoided_pusd=spent.avoided_pusd,
            model_calls=spent.model_calls,
            reported_calls=spent.reported_calls,
        )

    def _answer(self, line: bytes | str, place: int, seen: dict[str | int, int]) -> RunAudit | None:
        text = text_of(line, first=place == 1, line_bytes_max=self.line_bytes_max)
        if not text:
            return None
        try:
            recording = parse_line(text)
            first = seen.setdefault(recording.id, place)
            if first != place:
                raise Invalid(f'The "id" was already used in line {first}.', "Give every run of a file its own id.")
            return self.judge(recording)
        except RecursionError:
            raise Invalid("A value is nested too deeply.", "Store deep values as text.") from None


def audit_lines(
    lines: Iterable[bytes | str], *, source: str = "<lines>", auditor: Auditor | None = None
) -> Iterator[Answer]:
    """
    One answer for every recorded run: a `RunAudit`, or a `BadInput` for a line that could not be read.

    Args:
        lines: JSON texts, one run each.
        source: What the lines are called in complaints.
        auditor: Thresholds, prices and poll tools; the defaults and the prices of today unless given.
    """
    return (auditor or _today()).lines(lines, source=source)


def audit_file(
    path: str | Path, *, auditor: Auditor | None = None, wrap: Callable[[BinaryIO], Readable] | None = None
) -> Iterator[Answer]:
    """
    One answer for every recorded run of a file. A file that cannot be opened is one `BadInput`.

    Args:
        path: The file, JSON Lines in UTF-8.
        auditor: Thresholds, prices and poll tools; the defaults and the prices of today unless given.
        wrap: Put between the open file and its reader, for instance to show progress.
    """
    chosen = auditor or _today()
    try:
        with Path(path).open("rb") as stream:
            yield from chosen.stream(stream if wrap is None else wrap(stream), source=str(path))
    except OSError as exc:
        yield _unreadable(str(path), exc)


def _today() -> Auditor:
    from runrails import settings
    from runrails.clocks import system_ms

    return Auditor.at(system_ms(), prices=PriceBook.load(project_file=settings.price_file()))


def _unreadable(source: str, error: OSError) -> BadInput:
    if isinstance(error, IsADirectoryError):
        return BadInput(source=source, line=None, what="This is a directory.", fix="Name the .jsonl files in it.")
    reason = f"Cannot be read: {error.strerror or type(error).__name__}."
    return BadInput(source=source, line=None, what=reason, fix="Check the name and the permissions.")
