"""Price cards, the layers they come from, and the names they are found by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from runrails.errors import ConfigError, PriceUnknown
from runrails.money import format_usd, usd
from runrails.pricing import Price, PriceBook, cost_pusd, dearest_pusd
from runrails.pricing.cards import PriceCard, make_card
from runrails.pricing.project import ProjectPrices, parse_project, read_project
from runrails.pricing.snapshot import SNAPSHOT_FILE, SnapshotDamaged, matches, read_snapshot
from runrails.usage import Usage

BOOK = PriceBook()
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


NOW_MS = _ms("2026-11-21T12:00")


def _card(model: str, provider: str | None = None, now_ms: int = NOW_MS, book: PriceBook = BOOK) -> PriceCard:
    return book.card(model, provider=provider, now_ms=now_ms)


def _per_mtok(card: PriceCard) -> tuple[str, str]:
    million = 1_000_000
    return (
        format_usd(cost_pusd(card, Usage(input_tokens=million))),
        format_usd(cost_pusd(card, Usage(output_tokens=million))),
    )


# What is refused.


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-9", None),
        ("claude-sonnet-9", None),
        ("my-own-model", None),
        ("llama3", None),
        ("ollama:llama3.1", None),
        ("ollama/gemini-lookalike", None),
        ("llama3.1", "ollama"),
        ("gpt-4o", "my-gateway"),
        ("gpt-4o", "openai-compatible"),
        ("openai:gpt-4o", "anthropic"),
        ("my-deployment", "azure"),
        ("ft:gpt-4-0613:acme::abc", None),
        ("ft:gpt-4-0613:acme::abc", "openai"),
        ("ft:gpt-4.1-2025-04-14:acme::abc", "openai"),
        ("mistral-large-latest", None),
        ("mistral-medium", "mistral"),
        ("deepseek-chat", None),
        ("eu.anthropic.claude-of-tomorrow-v1:0", "bedrock"),
        ("arn:aws:bedrock:ap-east-1::foundation-model/meta.llama3-70b-instruct-v1:0", None),
        ("arn:aws:bedrock:us-gov-west-1::foundation-model/meta.llama3-70b-instruct-v1:0", None),
        ("arn:aws-cn:bedrock:cn-north-1::foundation-model/meta.llama3-70b-instruct-v1:0", None),
        ("bedrock/eu-central-1/amazon.nova-pro-v1:0", None),
        ("arn:aws-us-gov:bedrock:us-gov-west-1:1:inference-profile/us.anthropic.claude-sonnet-4-6-v1:0", None),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc123", "bedrock"),
        ("application-inference-profile/abc123", "bedrock"),
        ("azure/eu/gpt-4o", None),
        ("us/o4-mini", "azure"),
        ("projects/p/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4-5", "vertexai"),
        ("whisper-1", None),
        ("gemma-3", "google"),
        ("gpt-4o", "github-copilot"),
        ("deepseek/deepseek-r1:free", "openrouter"),
        ("", None),
        ("   ", "openai"),
        ("gpt-4\x00", None),
        ("x" * 513, None),
    ],
)
def test_a_price_that_nobody_wrote_down_is_refused(model: str, provider: str | None) -> None:
    """Unknown, renamed, regional, free-looking and unpriceable names are never guessed and never free."""
    with pytest.raises(PriceUnknown) as caught:
        _card(model, provider)
    assert "Price(input=" in caught.value.next_step
    assert "[prices." in caught.value.next_step


def test_a_refusal_names_the_model_and_says_how_to_add_it() -> None:
    """The advice works as written, in code and in the file."""
    with pytest.raises(PriceUnknown) as caught:
        _card("acme-1", "azure")
    error = caught.value
    assert ("acme-1", "azure") == (error.fields["model"], error.fields["provider"])
    assert "'acme-1'" in error.what
    assert 'Guard(prices={"azure:acme-1": Price(input="2.50", output="10.00")})' in error.next_step
    in_code = PriceBook(overrides={"azure:acme-1": Price(input="2.50", output="10.00")})
    in_file = PriceBook(project=parse_project(b'[prices."azure:acme-1"]\ninput = "2.50"\noutput = "10.00"\n'))
    for book in (in_code, in_file):
        assert ("$2.50", "$10.00") == _per_mtok(_card("acme-1", "azure", book=book))


def test_a_long_or_odd_name_is_shown_safely() -> None:
    """Model names come from requests: a refusal shows at most 120 printable characters of one."""
    with pytest.raises(PriceUnknown) as caught:
        _card("m\x1b[31m" + "x" * 400)
    assert "\x1b" not in str(caught.value)
    assert "x" * 130 not in str(caught.value)


def test_a_refusal_changes_nothing() -> None:
    """After unknown names the known ones cost what they did."""
    before = _card("gpt-4")
    for _ in range(3):
        with pytest.raises(PriceUnknown):
            _card("gpt-9")
    assert before == _card("gpt-4")


# The seed's three models, and the names people write.


@pytest.mark.parametrize(
    ("key", "rates"),
    [
        ("openai:gpt-4", ("$30.00", "$60.00")),
        ("openai:gpt-4-turbo", ("$10.00", "$30.00")),
        ("anthropic:claude-3-sonnet", ("$3.00", "$15.00")),
    ],
)
def test_the_articles_models_cost_what_it_says(key: str, rates: tuple[str, str]) -> None:
    """By the article's own keys."""
    assert rates == _per_mtok(_card(key))


@pytest.mark.parametrize(
    ("model", "provider", "found"),
    [
        ("gpt-4", None, "openai:gpt-4"),
        ("GPT-4", " OpenAI ", "openai:gpt-4"),
        ("gpt-4-0613", None, "openai:gpt-4"),
        ("openai/gpt-4o", None, "openai:gpt-4o"),
        ("openai:gpt-4o", "openai", "openai:gpt-4o"),
        ("gpt-4o-2024-08-06", None, "openai:gpt-4o"),
        ("gpt-6-sol-20260922", None, "openai:gpt-6-sol"),
        ("gpt-35-turbo", "azure_openai", "openai:gpt-3.5-turbo"),
        ("azure:gpt-4o", None, "openai:gpt-4o"),
        ("azure/gpt-4o", None, "openai:gpt-4o"),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", None, "openai:ft:gpt-4o-mini"),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", "openai", "openai:ft:gpt-4o-mini"),
        ("models/gemini-2.5-pro", None, "google:gemini-2.5-pro"),
        ("gemini/gemini-2.5-pro", None, "google:gemini-2.5-pro"),
        ("gemini-2.5-pro", "google_genai", "google:gemini-2.5-pro"),
        ("publishers/google/models/gemini-2.5-pro", "google_vertexai", "google:gemini-2.5-pro"),
        ("claude-sonnet-4-5@20250929", "vertexai", "google:claude-sonnet-4-5"),
        ("mistral-large-4", "mistralai", "mistral:mistral-large-4"),
        ("xai:grok-4.3", None, "x-ai:grok-4.3"),
        ("openrouter/openai/gpt-4o", None, "openrouter:openai/gpt-4o"),
        ("openai/gpt-4o", "openrouter", "openrouter:openai/gpt-4o"),
        ("openai/gpt-oss-120b", "groq", "groq:openai/gpt-oss-120b"),
        (f"us.{SONNET}", "bedrock", f"aws:regional.{SONNET}"),
        (f"us.{SONNET}", "amazon_bedrock", f"aws:regional.{SONNET}"),
        (f"global.{SONNET}", None, f"aws:global.{SONNET}"),
        ("bedrock/us.amazon.nova-pro-v1:0", None, "aws:amazon.nova-pro-v1:0"),
        (
            f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{SONNET}",
            None,
            f"aws:regional.{SONNET}",
        ),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "bedrock", "aws:amazon.nova-pro-v1:0"),
        (
            "anthropic.claude-3-5-sonnet-20241022-v2:0",
            "bedrock",
            "aws:regional.anthropic.claude-3-5-sonnet-20241022-v2:0",
        ),
        ("text-embedding-3-small", "openai", "openai:text-embedding-3-small"),
    ],
)
def test_names_as_people_and_frameworks_write_them(model: str, provider: str | None, found: str) -> None:
    """Keys, prefixes, dated names, profiles and ARNs lead to one model."""
    card = _card(model, provider)
    assert found == f"{card.provider}:{card.model}"


def test_a_regional_profile_keeps_its_surcharge() -> None:
    """`us.` costs 10 % more than `global.`."""
    assert [("$3.30", "$16.50"), ("$3.00", "$15.00")] == [
        _per_mtok(_card(f"{geo}.{SONNET}")) for geo in ("us", "global")
    ]


def test_a_fine_tune_with_its_own_price_has_it() -> None:
    """Not the price of its base model."""
    assert ("$0.30", "$1.20") == _per_mtok(_card("ft:gpt-4o-mini-2024-07-18:acme::abc"))


# Prices over time, tiers, parts.


@pytest.mark.parametrize(
    ("day", "rates"),
    [
        ("2026-10-01", ("$0.68", "$2.09")),
        ("2026-10-19T23:59", ("$0.68", "$2.09")),
        ("2026-10-20", ("$1.36", "$4.18")),
        ("2026-10-28T23:59", ("$1.36", "$4.18")),
        ("2026-10-29", ("$0.70", "$2.10")),
    ],
)
def test_a_price_changes_on_its_day(day: str, rates: tuple[str, str]) -> None:
    """Three prices in four weeks, each from midnight UTC of its day; one book gives all of them."""
    assert rates == _per_mtok(_card("mistral:mistral-large-4", now_ms=_ms(day)))


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-21T00:59", "$0.15"),
        ("2026-11-21T01:00", "$0.30"),
        ("2026-11-21T03:59", "$0.30"),
        ("2026-11-21T04:00", "$0.15"),
        ("2026-11-21T06:00", "$0.30"),
        ("2026-11-21T10:00", "$0.15"),
    ],
)
def test_a_price_changes_with_the_time_of_day(moment: str, expected: str) -> None:
    """Peak hours in UTC, the start inside and the end outside."""
    assert expected == _per_mtok(_card("deepseek-v4-flash", now_ms=_ms(moment)))[0]


def test_a_retired_name_has_a_price_until_it_was_retired() -> None:
    """An old bill can still be worked out, a new call is refused."""
    assert "$0.27" == _per_mtok(_card("deepseek-chat", now_ms=_ms("2026-07-23T12:00")))[0]
    with pytest.raises(PriceUnknown, match="retired"):
        _card("deepseek-chat", now_ms=_ms("2026-07-24"))


def test_a_tier_is_a_cliff_for_the_whole_request() -> None:
    """At the threshold the base applies to everything, one token later the tier does."""
    card = _card("gpt-5.4")
    at, above = (cost_pusd(card, Usage(input_tokens=tokens, output_tokens=10)) for tokens in (272_000, 272_001))
    assert 272_000 * 2_500_000 + 10 * 15_000_000 == at
    assert 272_001 * 5_000_000 + 10 * 22_500_000 == above


def test_every_part_has_its_own_rate() -> None:
    """Plain, read, written for five minutes and for an hour, and output, summed exactly."""
    usage = Usage(
        input_tokens=23_050,
        cache_read_tokens=20_000,
        cache_write_5m_tokens=1_000,
        cache_write_1h_tokens=2_000,
        output_tokens=400,
    )
    expected = 50 * 4_000_000 + 20_000 * 200_000 + 1_000 * 5_000_000 + 2_000 * 8_000_000 + 400 * 20_000_000
    assert expected == cost_pusd(_card("claude-opus-5-5"), usage)


def test_a_part_without_a_rate_costs_what_its_total_costs() -> None:
    """gpt-4 has no price for cached tokens: they are input, not free."""
    assert 100 * 30_000_000 == cost_pusd(_card("gpt-4"), Usage(input_tokens=100, cache_read_tokens=90))
    embedding = _card("text-embedding-3-small")
    assert (0, 20_000) == (embedding.output_tokens_max, cost_pusd(embedding, Usage(output_tokens=1)))


def test_cached_audio_has_its_own_rate() -> None:
    """Each token is counted once, whichever two groups it is in."""
    names = ("input", "output", "cache_read", "input_audio", "cache_read_audio")
    base = {name: (rate, 1) for name, rate in zip(names, (2, 5, 1, 20, 7), strict=True)}
    card = make_card(provider="p", model="m", source="run", base=base)
    usage = Usage(
        input_tokens=100, cache_read_tokens=30, input_audio_tokens=50, cache_read_audio_tokens=10, output_tokens=3
    )
    assert 30 * 2 + 20 * 1 + 10 * 7 + 40 * 20 + 3 * 5 == cost_pusd(card, usage)


def test_a_price_per_call_comes_on_top() -> None:
    """Perplexity bills requests beside tokens."""
    card = _card("perplexity:sonar")
    assert usd("0.012") == card.call_pusd
    assert usd("0.012") + 10 * 1_000_000 == cost_pusd(card, Usage(input_tokens=10))


def test_a_rate_that_is_no_whole_number_of_picodollars_stays_exact() -> None:
    """It is kept as a ratio and rounded up once a call, not once a token."""
    book = PriceBook(overrides={"m": Price(input="0.0000015", output="0.0000005")})
    card = _card("m", book=book)
    assert 2 == card.denominator
    assert [2, 3, 15, 16] == [
        cost_pusd(card, usage)
        for usage in (
            Usage(input_tokens=1),
            Usage(input_tokens=2),
            Usage(input_tokens=10),
            Usage(input_tokens=10, output_tokens=1),
        )
    ]


# Layers.


def test_the_run_wins_over_the_project_and_the_project_over_the_snapshot() -> None:
    """First hit wins, and the card says where it came from."""
    project = ProjectPrices(prices={"openai:gpt-4": Price(input="2", output="2")}, aliases={})
    books = [
        PriceBook(overrides={"gpt-4": Price(input="1", output="1")}, project=project),
        PriceBook(project=project),
        BOOK,
    ]
    cards = [_card("openai:gpt-4", book=book) for book in books]
    assert [("run", "$1.00"), ("project", "$2.00"), ("snapshot", "$30.00")] == [
        (card.source, _per_mtok(card)[0]) for card in cards
    ]
    assert 3 == len({card.fingerprint for card in cards})


@pytest.mark.parametrize("written", ["gpt-4", "openai:gpt-4", "OPENAI/gpt-4", " gpt-4 "])
@pytest.mark.parametrize(
    ("model", "provider"), [("gpt-4", None), ("gpt-4", "openai"), ("openai:gpt-4", None), ("openai/gpt-4", "openai")]
)
def test_an_override_is_found_however_it_is_written(written: str, model: str, provider: str | None) -> None:
    """With or without the provider, on either side."""
    book = PriceBook(overrides={written: Price(input="1", output="2")})
    assert ("$1.00", "$2.00") == _per_mtok(_card(model, provider, book=book))


def test_an_override_of_one_provider_is_not_used_for_another() -> None:
    """A contract with Azure says nothing of OpenAI."""
    book = PriceBook(overrides={"azure:gpt-4o": Price(input="1", output="1")})
    assert ["$1.00", "$2.50"] == [
        _per_mtok(_card("gpt-4o", provider, book=book))[0] for provider in ("azure", "openai")
    ]


def test_two_overrides_of_one_name_need_the_provider_or_the_snapshot_to_tell() -> None:
    """A name without a provider takes the entry of the provider that has such a model."""
    book = PriceBook(
        overrides={"azure:gpt-4o": Price(input="1", output="1"), "openai:gpt-4o": Price(input="2", output="2")}
    )
    assert "$2.00" == _per_mtok(_card("gpt-4o", book=book))[0]


def test_a_provider_that_nobody_knows_can_be_written_down() -> None:
    """A gateway of one's own, by its full key or by the bare name."""
    for key in ("my-gateway:m", "m"):
        book = PriceBook(overrides={key: Price(input="1", output="2")})
        assert ("$1.00", "$2.00") == _per_mtok(_card("m", "my-gateway", book=book))


def test_more_overrides_go_on_top_of_a_book() -> None:
    """A run's prices win over the guard's; the guard's book stays as it was."""
    guard = PriceBook(overrides={"m": "0", "n": Price(call="1")})
    run = guard.with_overrides({"M": Price(call="2")})
    assert [usd(3)] == [
        _card(
            "openai:gpt-4", book=PriceBook(overrides={"openai:gpt-4": "0"}).with_overrides({"gpt-4": Price(call="3")})
        ).call_pusd
    ]
    assert [0, usd(2), usd(1)] == [
        _card("m", book=guard).call_pusd,
        _card("m", book=run).call_pusd,
        _card("n", book=run).call_pusd,
    ]


def test_an_override_keeps_the_models_known_limits() -> None:
    """A negotiated price changes no context window; a written limit wins."""
    book = PriceBook(
        overrides={"gpt-4o": Price(input="1", output="1"), "gpt-4": Price(input="1", output="1", output_tokens_max=7)}
    )
    assert [(128_000, 16_384), (8_192, 7)] == [
        (card.context_tokens_max, card.output_tokens_max)
        for card in (_card("gpt-4o", book=book), _card("gpt-4", book=book))
    ]


def test_free_must_be_written() -> None:
    """ "0" is a price when somebody writes it."""
    book = PriceBook(overrides={"ollama:llama3": "0"})
    card = _card("llama3", "ollama", book=book)
    assert (True, 0, 0) == (
        card.free,
        cost_pusd(card, Usage(input_tokens=10**9, output_tokens=10**9)),
        dearest_pusd(card, input_tokens=10**9, output_tokens=10**9),
    )


def test_the_articles_figure_is_a_flat_price() -> None:
    """$3.20 an iteration, whatever the tokens; 891 of them are $2,851.20."""
    card = _card("gpt-4", book=PriceBook(overrides={"gpt-4": Price(call="3.20")}))
    assert "$2,851.20" == format_usd(sum(cost_pusd(card, Usage(input_tokens=4_000)) for _ in range(891)))


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (0, TypeError),
        (0.0, TypeError),
        (None, TypeError),
        (1.5, TypeError),
        ({"input": "1"}, TypeError),
        (True, TypeError),
        ("", ValueError),
        ("free", ValueError),
        ("0.5", ValueError),
        ("-0", ValueError),
        ("00", ValueError),
    ],
)
def test_a_malformed_override_is_refused_when_the_book_is_made(spec: object, error: type[Exception]) -> None:
    """Not when the first call needs it; `load` turns it into a ConfigError."""
    with pytest.raises(error, match="the price of 'm'"):
        PriceBook(overrides={"m": spec})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="the price of 'm'"):
        PriceBook.load({"m": spec})  # type: ignore[dict-item]


@pytest.mark.parametrize("names", [("",), ("  ",), ("gpt-4", "GPT-4 ")])
def test_a_price_without_a_name_or_with_a_namesake_is_refused(names: tuple[str, ...]) -> None:
    """Which of two prices applies must not depend on their order."""
    with pytest.raises(ConfigError, match="A price is malformed"):
        PriceBook.load(dict.fromkeys(names, "0"))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, ValueError),
        ({"input": "1"}, ValueError),
        ({"output": "1"}, ValueError),
        ({"cache_read": "1", "call": "1"}, ValueError),
        ({"input": 1.5, "output": "1"}, TypeError),
        ({"input": True, "output": "1"}, TypeError),
        ({"input": "-1", "output": "1"}, ValueError),
        ({"input": "nan", "output": "1"}, ValueError),
        ({"input": "1", "output": Decimal("Infinity")}, ValueError),
        ({"call": ""}, ValueError),
        ({"input": "1", "output": "1", "output_tokens_max": -1}, ValueError),
        ({"input": "1", "output": "1", "context_tokens_max": 1.5}, ValueError),
    ],
)
def test_a_price_that_says_too_little_or_nonsense_is_refused(fields: dict[str, object], error: type[Exception]) -> None:
    """Half a price would make the other half free."""
    with pytest.raises(error):
        Price(**fields)  # type: ignore[arg-type]


# The project file.


def test_the_project_file_holds_prices_and_aliases(tmp_path: Path) -> None:
    """Quoted or plain numbers, flat prices, free models, other names for models."""
    file = tmp_path / "runrails.toml"
    file.write_text(
        """
        [limits]
        run = "2.00"
        [prices]
        "ollama:llama3" = "0"
        flat = { call = 0.05 }
        [prices."azure:my-deployment"]
        input = 2.50
        output = "10"
        [aliases]
        prod = "azure:my-deployment"
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc" = "bedrock:us.amazon.nova-pro-v1:0"
        """
    )
    book = PriceBook.load(project_file=file)
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    cards = [_card(name, book=book) for name in ("ollama:llama3", "flat", "prod", "Prod", arn)]
    assert [("$0.00", 0), ("$0.00", usd("0.05")), ("$2.50", 0), ("$2.50", 0), ("$0.80", 0)] == [
        (format_usd(1_000_000 * card.rates.input), card.call_pusd) for card in cards
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[prices",
        "prices = 3",
        "aliases = []",
        "[prices]\nm = 0",
        "[prices]\nm = 0.0",
        "[prices]\nm = 'free'",
        "[prices]\nm = []",
        "[prices.m]\ninput = '1'",
        "[prices.m]\ninput = '1'\noutput = nan",
        "[prices.m]\ninput = '1'\noutput = inf",
        "[prices.m]\ninput = '1'\noutput = '2'\ninptu = '3'",
        "[prices.m]\ninput = true\noutput = '2'",
        "[prices.m]\ninput = '-1'\noutput = '2'",
        "[prices.m]\n",
        "[aliases]\na = 3",
        "[aliases]\na = ''",
        "\xff",
    ],
)
def test_a_malformed_project_file_is_a_config_error(text: str) -> None:
    """Every mistake is found when the file is read, and the file is named."""
    with pytest.raises(ConfigError, match=r"runrails\.toml"):
        parse_project(text.encode("latin-1"))


def test_a_missing_or_huge_project_file_is_a_config_error(tmp_path: Path) -> None:
    """Named, with what to do."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_project(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="larger than"):
        parse_project(b"#" * 1_000_001)


def test_aliases_in_a_circle_are_refused() -> None:
    """Instead of being followed for ever."""
    book = PriceBook(project=ProjectPrices(prices={}, aliases={"a": "b", "b": "a"}))
    with pytest.raises(PriceUnknown, match="circle"):
        _card("a", book=book)


# Cards, and the data they are made from.


def test_equal_content_has_equal_fingerprints() -> None:
    """The fingerprint names the content, not the object; any rate changes it."""
    first, second = (PriceBook(overrides={"m": Price(input="1", output="2")}) for _ in range(2))
    other = PriceBook(overrides={"m": Price(input="1", output="2", cache_read="0.5")})
    assert _card("m", book=first).fingerprint == _card("m", book=second).fingerprint
    assert _card("m", book=first).fingerprint != _card("m", book=other).fingerprint
    assert 64 == len(_card("m", book=first).fingerprint)


def test_a_card_can_be_written_as_json() -> None:
    """Everything that decides the cost is in it."""
    data = json.loads(json.dumps(_card("gpt-5.4").as_dict()))
    assert (2_500_000, 272_000) == (data["pusd_per_token"]["input"], data["tiers"][0]["above_tokens"])


def test_the_same_lookup_gives_the_same_card() -> None:
    """Cards are made once; a flood of names does not fill the memory."""
    book = PriceBook(overrides={"m": "0"})
    card = _card("gpt-4", book=book)
    assert card is _card("gpt-4", book=book)
    for number in range(3_000):
        _card("gpt-4" + " " * number if number < 400 else "gpt-4", f"openai{' ' * number}", book=book)
    assert len(book._schedules) <= 2_048
    assert card == _card("gpt-4", book=book)


def _all_cards() -> Iterator[PriceCard]:
    snapshot = read_snapshot()
    for provider in snapshot.provider_ids():
        for model in snapshot.model_ids(provider):
            schedule = snapshot.schedule(provider, model)
            assert schedule is not None
            yield from (window.card for window in schedule.windows if window.card is not None)


def test_no_card_of_the_snapshot_is_free() -> None:
    """Every model has a price for a token in and a token out, or has no card at all."""
    cards = list(_all_cards())
    assert len(cards) > 2_000
    assert [] == [card.model for card in cards if card.free or card.rates.input == 0 or card.rates.output == 0]


def test_the_bound_is_never_below_the_cost_on_any_card() -> None:
    """Whatever mix of parts fits into the bounded counts."""
    mixes = [
        Usage(input_tokens=300_000, output_tokens=1_000),
        Usage(input_tokens=300_000, cache_read_tokens=300_000, output_tokens=1_000, reasoning_tokens=1_000),
        Usage(input_tokens=300_000, cache_write_5m_tokens=150_000, cache_write_1h_tokens=150_000),
        Usage(input_tokens=300_000, input_audio_tokens=300_000, output_tokens=1_000, output_audio_tokens=1_000),
        Usage(input_tokens=90_000, cache_read_tokens=60_000, input_audio_tokens=50_000, cache_read_audio_tokens=40_000),
    ]
    for card in _all_cards():
        most = dearest_pusd(card, input_tokens=300_000, output_tokens=1_000, cache_write=True)
        assert max(cost_pusd(card, usage) for usage in mixes) <= most, card.model


@pytest.mark.parametrize(
    ("clause", "text", "expected"),
    [
        ("=a", "a", True),
        ("=a", "ab", False),
        ("^a", "ab", True),
        ("$b", "ab", True),
        ("*b", "abc", True),
        ("*d", "abc", False),
        ("~^a.c$", "abc", True),
        (["or", "=x", "=a"], "a", True),
        (["and", "^a", "$c"], "abc", True),
        (["and", "^a", "$d"], "abc", False),
        (["or", ["and", "^a", "*b"], "=z"], "abc", True),
    ],
)
def test_clauses(clause: object, text: str, expected: bool) -> None:
    """Every kind of clause."""
    assert expected == matches(clause, text)  # type: ignore[arg-type]


def test_damaged_data_is_found_out(tmp_path: Path) -> None:
    """One changed byte, a missing file or a missing checksum: no price is read from it."""
    source = Path(SNAPSHOT_FILE)
    good = tmp_path / "snapshot.json"
    good.write_bytes(source.read_bytes().replace(b'"input":"30"', b'"input":"03"'))
    good.with_suffix(".sha256").write_bytes(source.with_suffix(".sha256").read_bytes())
    with pytest.raises(SnapshotDamaged, match="does not match its checksum"):
        read_snapshot(good)
    good.with_suffix(".sha256").unlink()
    with pytest.raises(SnapshotDamaged, match="cannot be read"):
        read_snapshot(good)
    with pytest.raises(SnapshotDamaged, match="cannot be read"):
        read_snapshot(tmp_path / "none.json")
