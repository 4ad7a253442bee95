"""`runrails usage reconcile` and `corrections`: a provider's bill against the books, what is written, exit codes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from rr_ledger import CENT, FOUR, MONTH, RUN, START_MS, USER, Books, amounts, booking, books
from runrails.cli.shell import run
from runrails.ledger import CallFacts, ResultFacts
from runrails.stores.sqlite import SQLiteStore
from runrails.testing import ManualClock
from runrails.usage import Usage

DAY_MS = 86_400_000
Shell = Callable[..., tuple[int, str]]


class Desk:
    """A ledger in a file, with calls of one cent each, and a way to hand in bills."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        self.clock = ManualClock(START_MS)
        self.path = directory / "ledger.db"

    def open(self) -> SQLiteStore:
        return SQLiteStore(self.path, clock=self.clock, synchronous="NORMAL")

    def call(self, name: str, **told: object) -> None:
        """One settled call of a cent, answered as `chatcmpl-NAME`."""
        facts = {"provider": "openai", "model": "gpt-4o", **told}
        store = self.open()
        store.reserve(booking(name, 2 * CENT, *FOUR, facts=CallFacts(user="alice", run="r1", **facts)))  # type: ignore[arg-type]
        result = ResultFacts(usage=Usage(input_tokens=10), model="gpt-4o-2024-08-06", answer_id=f"chatcmpl-{name}")
        store.settle(name, CENT, result=result)
        store.close()

    def bill(self, text: str | bytes, name: str = "bill.csv") -> Path:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def run(self, *args: object) -> tuple[int, str]:
        """Exit code and everything printed."""
        code = run(["usage", *map(str, args), "--store", f"sqlite:///{self.path}"])
        told = self.capsys.readouterr()
        return code, told.out + told.err

    def reconcile(self, text: str | bytes, *options: object, name: str = "bill.csv") -> tuple[int, str]:
        return self.run("reconcile", self.bill(text, name), *options)

    def json(self, text: str | bytes, *options: object) -> tuple[int, dict[str, object]]:
        code, out = self.reconcile(text, *options, "--json")
        return code, json.loads(out)

    def books(self) -> Books:
        store = self.open()
        found = books(store)
        store.close()
        return found

    def spent(self, *names: str) -> list[int | None]:
        store = self.open()
        found = {record.id: record.actual_pusd for record in store.usage()}
        store.close()
        return [found[name] for name in names]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Three calls, a to c."""
    monkeypatch.setenv("COLUMNS", "200")
    made = Desk(tmp_path, capsys)
    for name in "abc":
        made.call(name)
    return made


def test_the_difference_is_settled_in_every_account(desk: Desk) -> None:
    """One call agrees, one was dearer and one cheaper; scopes and records are as billed, and the trail says so."""
    code, out = desk.reconcile(
        "request_id,cost,currency\nchatcmpl-a,0.01,USD\nchatcmpl-b,0.0125,usd\nchatcmpl-c,0.004,USD\n"
    )
    assert (0, [CENT, CENT * 5 // 4, CENT * 2 // 5]) == (code, desk.spent("a", "b", "c"))
    assert "1 calls agree, 2 corrected by -$0.0035" in out
    store = desk.open()
    assert [(CENT * 265 // 100, 0)] * 4 == [amounts(store, account) for account in FOUR]
    lines = list(store.corrections())
    assert [("b", CENT, CENT * 5 // 4), ("c", CENT, CENT * 2 // 5)] == [
        (line.reservation_id, line.before_pusd, line.after_pusd) for line in lines
    ]
    assert "bill.csv sha256:" in lines[0].source
    store.close()
    code, out = desk.run("corrections")
    assert 0 == code
    assert "$0.0125" in out
    assert "bill.csv" in out
    code, out = desk.run("corrections", "c", "--json")
    assert [("c", "settled", CENT * 2 // 5)] == [
        (line["reservation_id"], line["state_before"], line["after_pusd"]) for line in json.loads(out)
    ]
    assert "Nothing was corrected." in desk.run("corrections", "nobody")[1]


def test_the_same_bill_twice_changes_nothing_and_a_corrected_one_by_the_difference(desk: Desk) -> None:
    """Importing is harmless to repeat; the newest bill counts."""
    bill = "id,amount\nchatcmpl-a,0.02\nb,0.03\n"
    assert 0 == desk.reconcile(bill)[0]
    before = desk.books()
    code, facts = desk.json(bill)
    assert (0, 2, 0) == (code, facts["agreed"], facts["corrected"]["count"])  # type: ignore[index]
    assert before == desk.books()
    code, facts = desk.json("id,amount\nchatcmpl-a,0.02\nb,0.025\n")
    assert (0, -CENT // 2) == (code, facts["corrected"]["difference_pusd"])  # type: ignore[index]
    assert [2 * CENT, CENT * 5 // 2, CENT] == desk.spent("a", "b", "c")


def test_a_dry_run_writes_nothing(desk: Desk) -> None:
    """It tells the same and exits the same."""
    before = desk.books()
    code, out = desk.reconcile("id,cost\na,0.02\n", "--dry-run")
    assert (0, before) == (code, desk.books())
    assert "1 would be corrected by $0.01" in out
    code, facts = desk.json("id,cost\na,0.02\nnobody,1\n", "--dry-run")
    assert (1, True, 1, before) == (code, facts["dry_run"], facts["without_record"]["count"], desk.books())  # type: ignore[index]


def test_lines_of_one_call_are_added_up_with_their_credits(desk: Desk) -> None:
    """Input and output on lines of their own, finer than a picodollar, and a credit: rounded up once."""
    bill = (
        "request_id,line_item,cost\nchatcmpl-a,input,0.0040000000000004\nchatcmpl-a,output,0.0080000000000004\n"
        "chatcmpl-a,credit,-0.002\n"
    )
    assert 0 == desk.reconcile(bill)[0]
    assert [CENT + 1] == desk.spent("a")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: text.encode("utf-16"),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace("\n", "\n\n").encode() + b",,\n",
    ],
)
def test_files_as_they_come(desk: Desk, wrap: Callable[[str], bytes]) -> None:
    """Byte order marks, either line end, gzip, UTF-16, other separators, blank lines."""
    assert 0 == desk.reconcile(wrap('Request ID,Note,Cost USD\n"chatcmpl-a","two words",0.02\nb,,$0.03\n'))[0]
    assert [2 * CENT, 3 * CENT] == desk.spent("a", "b")


def test_quoted_fields_and_thousands(desk: Desk) -> None:
    """A comma inside quotes separates thousands, and lines may go on within quotes."""
    assert 0 == desk.reconcile('id,note,cost\na,"one\ntwo, three ""four""","1,234.50"\n')[0]
    assert [1_234_500_000_000_000] == desk.spent("a")


MALFORMED: list[tuple[str | bytes, str]] = [
    ("", "line 1"), ("\n", "line 1"), ("id\na\n", "no column for the amount"), ("cost\n1\n", "no column for the id"),
    ("id,cost\na,x\n", "line 2"), ("id,cost\na,0.01\nb\n", "line 3"), ("id,cost\na,0.01,9\n", "line 2"),
    ("id,cost\na,0.01\nb,\n", "line 3"), ("id,cost\na,nan\n", "line 2"), ("id,cost,cost\na,1,2\n", "more than once"),
    ("id,cost,currency\na,1,EUR\n", "line 2"), ("id,cost,currency\na,1,\n", "line 2"), ('id,cost\n"a,0.01\n', "line "),
    ("id,cost\na,-0.01\n", "less than 0"), ("id,cost\na,9999999999\n", "more than any ledger"),
    ("id;cost\na;1,234\n", "two things"), (b"id,cost\na,\xff\n", "line "), (b"\x1f\x8bnonsense", "line 1"),
    (gzip.compress(b"id,cost\n" + b"a,0.01\n" * 9_999)[:-9], "line "), ('id,cost\na"b"c,1\n"x"y,2\n', "line 3"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), MALFORMED)
def test_a_malformed_file_changes_nothing(desk: Desk, text: str | bytes, told: str) -> None:
    """The first line that cannot be right ends it with exit code 2; the error names the file and the line."""
    before = desk.books()
    code, out = desk.reconcile(text, "--json")
    assert (2, before) == (code, desk.books())
    assert told in out.lower()


def test_a_good_line_before_a_bad_one_is_not_written(desk: Desk) -> None:
    """All of the file is read before anything is settled."""
    before = desk.books()
    code, out = desk.reconcile("id,cost\n" + "a,0.02\n" + "b,0.03\n" * 5_000 + "c,oops\n")
    assert (2, before) == (code, desk.books())
    assert "line 5003" in out
    assert "oops" not in out


def test_what_is_not_there(desk: Desk) -> None:
    """A file that does not exist, a directory, and a header that is not there are bad input."""
    assert 2 == desk.run("reconcile", desk.directory / "none.csv")[0]
    assert 2 == desk.run("reconcile", desk.directory)[0]
    code, out = desk.reconcile("id,cost\na,1\n", "--amount-column", "price")
    assert (2, True) == (code, "price" in out)
    assert 2 == desk.reconcile("id,cost\na,1\n", "--period", "november")[0]
    assert 2 == desk.reconcile("id,cost\na,1\n", "--by", "user")[0]


def test_columns_can_be_named(desk: Desk) -> None:
    """Headers of any name, and one that would be taken for something else."""
    code, facts = desk.json(
        "ref,id,cost,net\na,x,9,0.02\n", "--id-column", "ref", "--amount-column", "Net"
    )  # fmt: skip
    assert (0, {"id": "ref", "amount": "net"}, [2 * CENT]) == (code, facts["columns"], desk.spent("a"))


def test_lines_without_a_record_are_left_open(desk: Desk) -> None:
    """What can be settled is; the rest is told with its line, and the exit code is 1."""
    code, out = desk.reconcile("id,cost\na,0.02\nnobody,0.01\n,0.5\n")
    assert (1, [2 * CENT]) == (code, desk.spent("a"))
    assert "2 of no call in the books, on lines 3, 4." in out


def test_records_without_a_line_are_told_with_a_period(desk: Desk) -> None:
    """A bill of a whole month must have every call of it that the platform paid for, of that provider."""
    desk.call("d", provider="anthropic")
    desk.call("e", byok=True)
    bill = "id,cost\na,0.01\nb,0.01\n"
    assert 0 == desk.reconcile(bill)[0]
    code, facts = desk.json(bill, "--period", MONTH)
    assert (1, ["c", "d"]) == (code, [line["id"] for line in facts["without_line"]["listed"]])  # type: ignore[index]
    code, out = desk.reconcile(bill, "--period", MONTH, "--provider", "openai")
    assert (1, True) == (code, "1 calls that the bill does not have: c." in out)
    assert 0 == desk.reconcile(bill + "c,0.01\n", "--period", MONTH, "--provider", "openai")[0]
    assert 0 == desk.reconcile("id,cost\ne,0.01\n", "--period", MONTH, "--own-key")[0]
    code, facts = desk.json(bill, "--period", "2026-10")
    assert (1, 2) == (code, facts["without_record"]["count"])  # type: ignore[index]


def test_the_bill_resolves_what_was_open(desk: Desk) -> None:
    """A stand-in becomes final, an expired hold and a call that was taken for never sent are charged as billed."""
    store = desk.open()
    for name in ("stand-in", "lost", "given-back"):
        store.reserve(booking(name, 2 * CENT, RUN, USER, facts=CallFacts(user="alice", run="r1")))
    store.settle("stand-in", 2 * CENT, unresolved=True)
    store.release("given-back")
    desk.clock.advance(50 * 365 * DAY_MS)  # The command goes by the real clock.
    store.reserve(booking("open", 2 * CENT, RUN, USER, facts=CallFacts(user="alice", run="r1")))
    store.close()
    code, facts = desk.json("id,cost\nstand-in,0.02\nlost,0.003\ngiven-back,0.001\nopen,0.02\n")
    assert (1, 1, 3) == (code, facts["in_flight"]["count"], facts["corrected"]["count"])  # type: ignore[index]
    store = desk.open()
    found = {record.id: (record.state, record.actual_pusd) for record in store.usage()}
    assert {
        "stand-in": ("late", 2 * CENT), "lost": ("late", CENT * 3 // 10), "given-back": ("late", CENT // 10),
        "open": ("held", None),
    }.items() <= found.items()  # fmt: skip
    store.close()


def test_an_id_of_two_calls_is_left_alone(desk: Desk) -> None:
    """Neither of two records with one answer's id is touched, nor one that the bill has under two ids."""
    store = desk.open()
    store.reserve(booking("twin", CENT, facts=CallFacts(user="alice", run="r1")))
    store.settle("twin", CENT, result=ResultFacts(answer_id="chatcmpl-a"))
    store.close()
    before = desk.books()
    code, facts = desk.json("id,cost\nchatcmpl-a,0.02\nb,0.02\nchatcmpl-b,0.03\n")
    assert (1, 3, before) == (code, facts["unclear"]["count"], desk.books())  # type: ignore[index]


def test_an_id_of_the_clients_own(desk: Desk) -> None:
    """A tag may hold the id by which the bill names a call."""
    desk.call("d", tags=(("request", "my 1"),))
    bill = "id,cost\nmy 1,0.02\n"
    assert 1 == desk.reconcile(bill)[0]
    assert 0 == desk.reconcile(bill, "--client-tag", "request")[0]
    assert [2 * CENT] == desk.spent("d")


def test_markup_and_own_keys_are_worked_out_anew(desk: Desk) -> None:
    """The bill is what the provider gets: a marked-up call is charged 2 % more, one on a user's own key is not."""
    desk.call("d", markup_bp=200)
    desk.call("e", byok=True, markup_bp=200)
    code, facts = desk.json("id,cost\nd,0.000000000051\ne,0.000000000051\n")
    assert 0 == code
    assert [(51, 53), (51, 51)] == [
        (line["billed_pusd"], line["after_pusd"]) for line in facts["corrected"]["listed"]  # type: ignore[index]
    ]  # fmt: skip
    assert 0 == desk.json("id,cost\nd,0.000000000051\ne,0.000000000051\n")[0]
    code, out = desk.run("--json")
    records = {record["id"]: record for record in json.loads(out)}
    assert [(51, 2, 53, True), (51, 0, 0, True), (CENT, 0, CENT, False)] == [
        tuple(records[name][key] for key in ("provider_pusd", "markup_pusd", "charged_pusd", "corrected"))
        for name in ("d", "e", "a")
    ]


def test_sums_by_day_and_model_are_compared_only(desk: Desk) -> None:
    """Groups of both books side by side, exact to the last digit; nothing is written; 1 if any differ."""
    desk.clock.advance(DAY_MS)
    desk.call("d")
    before = desk.books()
    bill = (
        'date,line_item,amount_value\n2026-11-18,"gpt-4o-2024-08-06, input",0.02\n'
        '2026-11-18T23:59:59Z,"GPT-4o-2024-08-06, output",0.01\n1795086400,gpt-4o-2024-08-06,0.0100000000000001\n'
        "2026-11-20,other,0\n"
    )
    code, facts = desk.json(bill, "--by", "day,model")
    groups = {(row["day"], row["model"]): row for row in facts["groups"]}  # type: ignore[attr-defined]
    assert 1 == code
    same, differs = (groups[f"2026-11-{day}", "gpt-4o-2024-08-06"] for day in (18, 19))
    assert (3, Decimal("0.03"), 0) == (same["calls"], Decimal(same["ours_usd"]), Decimal(same["difference_usd"]))
    assert Decimal("0.0000000000000001") == Decimal(differs["difference_usd"])
    code, out = desk.reconcile(bill, "--by", "model")
    assert (1, True) == (code, "$0.0000000000000001" in out)
    assert 0 == desk.reconcile("model,cost\ngpt-4o-2024-08-06,0.04\n", "--by", "model")[0]
    assert 1 == desk.reconcile("model,cost\ngpt-4o-2024-08-06,0.04\n", "--by", "model", "--provider", "aws")[0]
    fine = "0" * 35 + "1"
    code, out = desk.reconcile(f"model,cost\ngpt-4o-2024-08-06,0.04{fine}\n", "--by", "model")
    assert (1, True) == (code, f"$0.00{fine}" in out)
    assert 2 == desk.reconcile("day,cost\nyesterday,0.04\n", "--by", "day")[0]
    assert 2 == desk.reconcile("model,cost\nx,0.04\n", "--by", "day")[0]
    assert before == desk.books()


def test_usage_itself_is_as_it_was(desk: Desk) -> None:
    """The sub-commands leave `runrails usage` and its options alone; its sums say whose money it was."""
    desk.call("d", markup_bp=200)
    desk.call("e", byok=True)
    code, out = desk.run("--by", "user")
    assert (0, True) == (code, "5 calls, $0.05" in out)
    assert "on users' own keys $0.01, billed by the platform $0.04" in out
    code, out = desk.run("--by", "user", "--json")
    (row,) = json.loads(out)
    assert (5 * CENT, 5 * CENT - row["markup_pusd"], CENT, 4 * CENT) == (
        row["cost_pusd"], row["provider_pusd"], row["own_key_pusd"], row["billed_pusd"]
    )  # fmt: skip


def test_a_line_that_is_there_twice_is_left_open(desk: Desk) -> None:
    """Pages that overlap must not bill a call twice; who knows better says so. Other lines are written."""
    bill = "id,time,cost\na,t1,0.02\nb,t1,0.03\na,t1,0.02\n"
    code, out = desk.reconcile(bill)
    assert (1, [CENT, 3 * CENT]) == (code, desk.spent("a", "b"))
    assert "Left open: 1 with the same line twice" in out
    code, facts = desk.json(bill)
    assert (1, 1) == (code, facts["repeated"]["count"])  # type: ignore[index]
    assert 0 == desk.reconcile(bill, "--add-repeated")[0]
    assert [4 * CENT, 3 * CENT] == desk.spent("a", "b")


def test_lines_that_differ_in_anything_are_no_repetition(desk: Desk) -> None:
    """Two parts of a call may cost the same."""
    assert 0 == desk.reconcile("id,item,cost\na,input,0.01\na,output,0.01\na,cached,0.01\n")[0]
    assert [3 * CENT] == desk.spent("a")


def test_what_fails_half_way_says_how_much_is_written(desk: Desk) -> None:
    """And nothing of it is written twice by the next import."""
    code, out = desk.reconcile("id,cost\na,0.02\nb,5000000\nc,5000000\n")
    assert (2, [2 * CENT, 5_000_000 * 100 * CENT, CENT]) == (code, desk.spent("a", "b", "c"))
    assert "2 of 3 corrections are written" in " ".join(out.split())
    assert 0 == desk.reconcile("id,cost\na,0.02\nb,0.03\nc,0.03\n")[0]
    assert [2 * CENT, 3 * CENT, 3 * CENT] == desk.spent("a", "b", "c")


def test_names_on_the_screen_are_text(desk: Desk) -> None:
    """Neither a file's nor a model's name is markup, or something that a terminal obeys."""
    desk.call("d", model="m[/red]\x1b[31m")
    code, out = desk.reconcile("id,cost\nd,0.02\n", name="[bold]x[.csv")
    assert 0 == code
    assert "m[/red]?[31m" in out
    assert "[bold]x[.csv: 1 lines" in out
    assert "\x1b" not in out
