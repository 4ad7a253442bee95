"""Lines of a recording: what cannot be read is named with its line and the fix, and costs only itself."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from rr_audit import answers, asks, auditor, bad, line, one, text_of
from runrails.audit import BadInput, RunAudit, audit_file, audit_lines

NOT_RUNS = {
    "cut off": ('{"id": "a", "steps": [', "Not valid JSON"),
    "not JSON": ("hello", "Not valid JSON"),
    "two values": ("{} {}", "Not valid JSON"),
    "a list": ("[]", "a line must be an object, not a list."),
    "a text": ('"x"', "a line must be an object, not text."),
    "null": ("null", "a line must be an object, not null."),
    "NaN": ('{"id": "a", "steps": [{"kind": "tool", "name": "f", "ok": true, "output": NaN}]}', "NaN is not JSON."),
    "Infinity": ('{"id": "a", "steps": [], "x": -Infinity}', "-Infinity is not JSON."),
    "huge number": ('{"id": "a", "steps": [], "x": ' + "9" * 5_000 + "}", "A number has too many digits."),
    "too deep": ('{"id": "a", "steps": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply."),
    "no id": ('{"steps": []}', 'The "id" must be a text or a whole number, but it is missing.'),
    "empty id": ('{"id": "", "steps": []}', "but it is empty."),
    "id true": ('{"id": true, "steps": []}', "but it is true or false."),
    "id 1.5": ('{"id": 1.5, "steps": []}', "but it is a number."),
    "no form": ('{"id": "a"}', 'The line has neither of "messages" and "steps".'),
    "both forms": ('{"id": "a", "messages": [], "steps": []}', 'The line has both of "messages" and "steps".'),
    "steps no list": ('{"id": "a", "steps": {}}', "steps must be a list, not an object."),
    "messages no list": ('{"id": "a", "messages": "hi"}', "messages must be a list, not text."),
    "poll no list": ('{"id": "a", "steps": [], "poll_tools": "f"}', "poll_tools must be a list, not text."),
    "poll of numbers": ('{"id": "a", "steps": [], "poll_tools": [1]}', "poll_tools[0] must be text"),
}


@pytest.mark.parametrize(("text", "what"), NOT_RUNS.values(), ids=NOT_RUNS.keys())
def test_a_line_that_is_no_run_is_named_and_the_others_are_answered(text: str, what: str) -> None:
    """Every kind of malformed line gives a complaint that says what is wrong; the lines around it are answered."""
    assert what in bad(text).what


def test_invalid_utf8_is_named_by_its_byte() -> None:
    """A line that is not UTF-8 says where, and how to save the file."""
    complaint = bad(b'{"id": "\xff", "steps": []}')
    assert complaint.what == "Not valid UTF-8 at byte 9 of the line."
    assert complaint.fix == "Save the file as UTF-8."


def test_complaints_never_quote_the_recording() -> None:
    """What a tool or a model said stays out of complaints, whatever is wrong."""
    secret = "sk-secret"
    for text in (
        '{"id": "a", "steps": [{"kind": "' + secret + '"}]}',
        '{"id": "a", "messages": [{"role": "' + secret + '"}]}',
        '{"id": "a", "messages": [{"role": "tool", "tool_call_id": "' + secret + '", "content": "' + secret + '"}]}',
        '{"id": "a", "steps": [{"kind": "tool", "name": "f", "ok": "' + secret + '"}]}',
        secret,
    ):
        assert secret not in str(bad(text))


def test_a_complaint_starts_with_file_and_line() -> None:
    """As one text a complaint can be clicked on: file, line, what, fix."""
    complaint = BadInput(source="a.jsonl", line=7, what="It is bad.", fix="Mend it.")
    assert str(complaint) == "a.jsonl:7: It is bad. Mend it."


def test_blank_lines_are_skipped_but_counted() -> None:
    """Blank lines are no runs, and line numbers stay those of the file."""
    first, complaint = auditor().lines(["", line(steps=[]), " \t\r\n", "oops", ""], source="f")
    assert isinstance(first, RunAudit)
    assert isinstance(complaint, BadInput)
    assert complaint.line == 4


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    """Files as some editors save them are read; a mark on a later line is a mistake."""
    good = b"\xef\xbb\xbf" + line(steps=[]).encode() + b"\r\n"
    [answer] = auditor().lines([good], source="f")
    assert isinstance(answer, RunAudit)
    assert "Not valid JSON" in bad("\ufeff" + line(steps=[])).what


def test_an_id_may_be_used_once() -> None:
    """The second run of the same id is refused, because answers are told apart by it; text and number differ."""
    lines = [line(id="a", steps=[]), line(id="a", steps=[]), line(id=1, steps=[]), line(id="1", steps=[])]
    first, second, third, fourth = auditor().lines(lines, source="f")
    assert isinstance(second, BadInput)
    assert (second.line, second.what) == (2, 'The "id" was already used in line 1.')
    assert [answer.id for answer in (first, third, fourth) if isinstance(answer, RunAudit)] == ["a", 1, "1"]


def test_a_bad_run_does_not_use_up_its_id() -> None:
    """A run that could not be read may come again, mended."""
    lines = ['{"id": "a", "steps": [{}]}', line(id="a", steps=[])]
    _, answer = auditor().lines(lines, source="f")
    assert isinstance(answer, RunAudit)


@pytest.mark.parametrize(("spare", "kind"), [(1, RunAudit), (0, RunAudit), (-1, BadInput)])
def test_a_line_has_a_length_limit(spare: int, kind: type) -> None:
    """A line of exactly the limit is read, one byte more is refused, and the next line is whole."""
    text = line(steps=[])
    limited = auditor(line_bytes_max=len(text) + spare)
    stream = io.BytesIO(text_of([text, '{"id":2,"steps":[]}']))
    first, second = limited.stream(stream, source="f")
    assert isinstance(first, kind)
    assert isinstance(second, RunAudit)


def test_a_line_far_above_the_limit_is_skipped_in_pieces() -> None:
    """The rest of an endless line is thrown away without keeping it, also where the file ends in it."""
    limited = auditor(line_bytes_max=100)
    stream = io.BytesIO(b"x" * 3_000_000 + b'\n{"id":2,"steps":[]}\n' + b"y" * 3_000_000)
    first, second, third = limited.stream(stream, source="f")
    assert isinstance(first, BadInput)
    assert first.what == "The line is longer than 100 bytes."
    assert isinstance(second, RunAudit)
    assert isinstance(third, BadInput)
    assert third.line == 3


def test_a_result_of_10_mb_is_read() -> None:
    """A run with a huge tool result is answered like any other."""
    run = one(messages=[asks(1), answers(1, "word " * 2_000_000)])
    assert run.verdict == "ok"


def test_lone_surrogates_are_answered_in_ascii() -> None:
    """Half a character in ids, names, arguments and results does no harm; the answer is pure ASCII."""
    text = line(
        id="\ud800", steps=[{"kind": "tool", "name": "\udfff", "args": "\ud800", "ok": True, "output": "\udc00"}]
    )
    [answer] = auditor().lines([text], source="f")
    assert isinstance(answer, RunAudit)
    assert json.loads(answer.as_json())["id"] == "\ud800"
    assert answer.as_json().isascii()


def test_deep_arguments_cost_only_their_line() -> None:
    """Arguments nested as deeply as JSON can be read never end the audit."""
    deep: object = 1
    for _ in range(400):
        deep = [deep]
    text = line(steps=[{"kind": "tool", "name": "f", "args": {"x": deep}, "ok": True, "output": deep}])
    assert len(list(auditor().lines([text, line(id=2, steps=[])], source="f"))) == 2


def test_numbers_beyond_a_float_and_deep_values_do_not_end_the_audit() -> None:
    """Whatever JSON allows in arguments and results is heard by the detector or refused, and the next line answered."""
    step = '{"kind": "tool", "name": "f", "ok": true, "args": %s, "output": %s}'
    for value in ("1e999", "9" * 4_000, "[" * 900 + "]" * 900, '{"a":' * 700 + "1" + "}" * 700):
        lines = ['{"id": 1, "steps": [' + step % (value, value) + "]}", line(id=2, steps=[])]
        assert [type(answer).__name__ for answer in auditor().lines(lines, source="f")][-1] == "RunAudit"


def test_a_missing_file_and_a_directory_are_complaints(tmp_path: Path) -> None:
    """What cannot be opened is named, without a line."""
    [missing] = audit_file(tmp_path / "none.jsonl", auditor=auditor())
    [directory] = audit_file(tmp_path, auditor=auditor())
    assert isinstance(missing, BadInput)
    assert isinstance(directory, BadInput)
    assert (missing.line, directory.line) == (None, None)
    assert str(missing).startswith(f"{tmp_path / 'none.jsonl'}: Cannot be read: No such file")
    assert directory.what == "This is a directory."


def test_a_device_that_fails_ends_with_a_complaint() -> None:
    """Lines before a read error are answered; the error is a complaint, not an exception."""

    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            return super().readline(size) or self._fail()

        def _fail(self) -> bytes:
            raise OSError(5, "Input/output error")

    first, second = auditor().stream(Failing(text_of([line(steps=[])])), source="f")
    assert isinstance(first, RunAudit)
    assert str(second) == "f: Cannot be read: Input/output error. Check the name and the permissions."


def test_an_empty_file_has_no_answers(tmp_path: Path) -> None:
    """Nothing in, nothing out."""
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert list(audit_file(tmp_path / "empty.jsonl")) == []


def test_answers_come_as_lines_are_read() -> None:
    """A long recording is never held as a whole: the first answer is there before the second line is asked for."""
    given = iter([line(id=1, steps=[])])
    reading = audit_lines(given, auditor=auditor())
    assert isinstance(next(reading), RunAudit)
    assert next(reading, None) is None


def test_keys_in_their_order() -> None:
    """An answer has exactly these keys in exactly this order."""
    keys = ["id", "verdict", "hint_at", "block_at", "stop_at", "rule", "tool", "tokens", "cost_usd", "avoided_usd"]
    run = one(steps=[])
    assert list(json.loads(run.as_json())) == keys
    assert list(run.as_dict()) == keys
    assert run.as_dict() == {**dict.fromkeys(keys), "id": "r1", "verdict": "ok"}
