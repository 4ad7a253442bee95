"""A malformed price file: the line and the key are named, and nothing of it is applied."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runrails.errors import ConfigError
from runrails.pricing import PriceBook
from runrails.pricing.project import parse_project

HEAD = '# prices of ours\n[prices."a b"]\ninput = "1"\n'
BAD_AMOUNTS = [
    "nan", "inf", "-inf", "-1", '"-1"', '"nan"', '"Infinity"', '"1e5"', '""', '"one"', "true", "[]", "{}", "2026-01-01",
    "1e999999", "1e-999999", "1e9999999999999999999999", '"1e9999999999"', "9" * 5_000, "0x" + "F" * 9_000,
    "9223373", "0.0000000000001", f'"{"1" * 500}"',
]  # fmt: skip


@pytest.mark.parametrize("amount", BAD_AMOUNTS)
@pytest.mark.parametrize("key", ["output", "cache_read", "call", "web_search", "output_image"])
def test_an_amount_that_cannot_be_is_named(key: str, amount: str) -> None:
    """Not finite, negative, absurd, or of another type: in no time, by line and key."""
    other = "" if key == "output" else 'output = "2"\n'
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse_project(f"{HEAD}{other}{key} = {amount}\n".encode())
    assert time.process_time() - started < 1.0
    assert 4 + bool(other) == caught.value.fields["line"]
    assert str(caught.value.fields["key"]).endswith(key)
    assert f"line {4 + bool(other)}" in caught.value.what
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('[prices.m]\ninput = "1"\n', 1, "prices.m"),
        ('[prices.m]\ninput = "1"\noutput = "2"\ninptu = "3"\n', 4, "prices.m.inptu"),
        ('[prices.m]\ninput = "1"\ninput = "2"\n', 3, "input"),
        ('[prices.m]\ninput = "1"\noutput = "1"\n[prices.m]\n', 4, "[prices.m]"),
        ('[prices]\n"m" = "0"\n\n" M " = "0"\n', 4, 'prices." M "'),
        ('[prices]\n"" = "0"\n', 2, 'prices.""'),
        ("[prices]\nm = 0\n", 2, "prices.m"),
        ("[prices]\nm = 0.0\n", 2, "prices.m"),
        ('[prices]\nm = "free"\n', 2, "prices.m"),
        ("[prices]\nx = { call = 0.05 }\ny = { call = -0.05 }\n", 3, "prices.y.call"),
        ('[prices.m]\ninput = "1"\noutput = "2"\ncontext_tokens_max = 0\n', 4, "prices.m.context_tokens_max"),
        (f'[prices.m]\ninput = "1"\noutput = "2"\noutput_tokens_max = {2**70}\n', 4, "prices.m.output_tokens_max"),
        ('[prices.m]\ninput = "1"\noutput = "2"\noutput_tokens_max = 1.5\n', 4, "prices.m.output_tokens_max"),
        ('[prices.m]\ninput = "1"\noutput = "2"\n\n[prices.m.tiers]\nflex = 3\n', 6, "prices.m.tiers.flex"),
        ('[prices.m]\ninput = "1"\noutput = "2"\ntiers.flex = { input = "1" }\n', 4, "prices.m.tiers.flex"),
        ('[prices.m]\ninput = "1"\noutput = "2"\ntiers = 3\n', 4, "prices.m.tiers"),
        ("prices = 3\n", 1, "prices"),
        ("x = 1\naliases = []\n", 2, "aliases"),
        ("[aliases]\na = 'gpt-4'\nb = 3\n", 3, "aliases.b"),
        ("[aliases]\nA = 'gpt-4'\na = 'gpt-4o'\n", 3, "aliases.a"),
        ("contract = 3\n", 1, "contract"),
        ("[[contract]]\npercent = 1\n\n[[contract]]\npercent = nan\n", 5, "contract.2.percent"),
        ("[[contract]]\npercent = 1\nvalid_from = 'soon'\n", 3, "contract.1.valid_from"),
        ("[[contract]]\npercent = 1\ndiscount = 3\n", 3, "contract.1.discount"),
        ('[[contract]]\nmodel = "m"\nprice = { input = "x", output = "1" }\n', 3, "contract.1.price.input"),
        ('[[contract]]\nmodel = "m"\nprice = "0"\n', 3, "contract.1.price"),
        ("[prices\n", 1, "[prices"),
        ("a = 1\nb = [1, 2\n", 2, "b"),
        ("\x00\n", 1, "'\\x00'"),
    ],
)  # fmt: skip
def test_the_line_and_the_key_are_named(text: str, line: int, key: str) -> None:
    """Whatever is wrong, also with Windows' line ends and a byte order mark."""
    for content in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        with pytest.raises(ConfigError) as caught:
            parse_project(content.encode())
        assert (line, key) == (caught.value.fields["line"], caught.value.fields["key"])


def test_what_is_no_text_is_told_by_its_line() -> None:
    """The bytes themselves are not shown."""
    with pytest.raises(ConfigError, match="line 3") as caught:
        parse_project(b"a = 1\nb = 2\nc = '\xff\xfe'\n")
    assert "UTF-8" in caught.value.what


@pytest.mark.parametrize("content", [b"#" * 10_000_000, b"x = " + b"[" * 100_000, b"\xff" * 1_000_001])
def test_a_huge_or_deep_file_is_refused_quickly(content: bytes, tmp_path: Path) -> None:
    """Ten megabytes are not read to the end; in CPU time, as others may use the machine."""
    file = tmp_path / "runrails.toml"
    file.write_bytes(content)
    started = time.process_time()
    with pytest.raises(ConfigError, match=r"runrails\.toml"):
        PriceBook.load(project_file=file)
    assert time.process_time() - started < 1.0


def test_nothing_is_half_applied(tmp_path: Path) -> None:
    """A good price before a mistake does not count, and a book that was there before is as it was."""
    file = tmp_path / "runrails.toml"
    file.write_text('[prices]\n"gpt-4" = "0"\n')
    book = PriceBook.load(project_file=file)
    file.write_text('[prices]\n"gpt-4" = "0"\n"gpt-4o" = "0"\nm = "oops"\n')
    with pytest.raises(ConfigError, match="line 4"):
        PriceBook.load(project_file=file)
    assert (True, False) == tuple(book.card(name, now_ms=1_795_000_000_000).free for name in ("gpt-4", "gpt-4o"))
