"""The report of a finished run, read back from what a store keeps of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runrails.calls import Finding
from runrails.grouping import GroupRow
from runrails.report import Report, Saving, StepRow

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_report"]


class _Facts:
    """A mapping of which nothing is sure but that it is one."""

    def __init__(self, facts: object) -> None:
        self._facts: Mapping[object, object] = cast("Mapping[object, object]", facts) if isinstance(facts, dict) else {}

    def count(self, name: str) -> int:
        return self.maybe_count(name) or 0

    def maybe_count(self, name: str) -> int | None:
        found = self._facts.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def word(self, name: str) -> str:
        return self.maybe_word(name) or ""

    def maybe_word(self, name: str) -> str | None:
        found = self._facts.get(name)
        return found if isinstance(found, str) else None

    def items(self, name: str) -> list[_Facts]:
        found = self._facts.get(name)
        return [_Facts(each) for each in cast("list[object]", found)] if isinstance(found, list) else []

    def inner(self, name: str) -> _Facts:
        return _Facts(self._facts.get(name))

    def names(self) -> list[str]:
        return [name for name in self._facts if isinstance(name, str)]


def read_report(facts: Mapping[str, object]) -> Report:
    """
    What `Report.as_dict` was made from.

    Records of any version can be read: what an older one does not have is empty, what a newer one has besides is left
    out, and so is what has another form than it should.

    Args:
        facts: `RunRecord.report`, or the JSON of `runrails report RUN --json`.
    """
    told = _Facts(facts)
    groups, tags = told.inner("groups"), told.inner("tags")
    return Report(
        run=told.word("run"), name=told.word("name"), user=told.word("user"), mode=told.word("mode"),
        started_ms=told.count("started_ms"), duration_ms=told.count("duration_ms"), steps=told.count("steps"),
        model_calls=told.count("model_calls"), tool_calls=told.count("tool_calls"),
        input_tokens=told.count("input_tokens"), output_tokens=told.count("output_tokens"),
        cost_pusd=told.count("cost_pusd"), unresolved_pusd=told.count("unresolved_pusd"),
        overrun_pusd=told.count("overrun_pusd"), limit_pusd=told.maybe_count("limit_pusd"), hints=told.count("hints"),
        blocks=told.count("blocks"), refusals=told.count("refusals"), stop_reason=told.maybe_word("stop_reason"),
        stop_message=told.maybe_word("stop_message"), would_have_stopped=told.maybe_word("would_have_stopped"),
        findings=tuple(_finding(each) for each in told.items("findings")),
        rows=tuple(_step(each) for each in told.items("rows")), key=told.maybe_word("key"), org=told.maybe_word("org"),
        tags=tuple((name, tags.word(name)) for name in tags.names()),
        groups={name: tuple(_group(each) for each in groups.items(name)) for name in groups.names()},
        own_key_pusd=told.count("own_key_pusd"), savings=tuple(_saving(each) for each in told.items("savings")),
        refused=told.maybe_word("refused"),
    )  # fmt: skip


def _step(told: _Facts) -> StepRow:
    return StepRow(
        step=told.count("step"), kind="tool" if told.word("kind") == "tool" else "model", name=told.word("name"),
        agent=told.word("agent"), end=told.word("end"), input_tokens=told.count("input_tokens"),
        output_tokens=told.count("output_tokens"), cost_pusd=told.count("cost_pusd"),
        duration_ms=told.count("duration_ms"), call=told.word("call"), finding=told.word("finding"),
        total_pusd=told.maybe_count("total_pusd"),
    )  # fmt: skip


def _finding(told: _Facts) -> Finding:
    level = told.word("level")
    return Finding(
        level="stop" if level == "stop" else "block" if level == "block" else "hint", rule=told.word("rule"),
        tool=told.word("tool"), agent=told.word("agent"), count=told.count("count"), threshold=told.count("threshold"),
        first_step=told.count("first_step"), last_step=told.count("last_step"),
        call_fingerprint=told.word("call_fingerprint"), outcome_fingerprint=told.word("outcome_fingerprint"),
        for_model=told.word("for_model"), what_happened=told.word("what_happened"),
        how_to_allow=told.word("how_to_allow"),
    )  # fmt: skip


def _group(told: _Facts) -> GroupRow:
    return GroupRow(
        name=told.maybe_word("name"), calls=told.count("calls"), input_tokens=told.count("input_tokens"),
        output_tokens=told.count("output_tokens"), cost_pusd=told.count("cost_pusd"),
        own_key_pusd=told.count("own_key_pusd"),
    )  # fmt: skip


def _saving(told: _Facts) -> Saving:
    return Saving(told.word("what"), told.count("calls"), told.count("tokens"), told.count("saved_pusd"))
