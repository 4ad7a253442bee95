"""Contracts, patches, service tiers, what is assumed: which layer's price applies, and what it is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from runrails.errors import ConfigError, PriceUnknown
from runrails.money import usd
from runrails.pricing import Price, PriceBook, PriceCard, Term, cost_pusd, dearest_pusd
from runrails.pricing.cards import card_from_text, fingerprint_of
from runrails.pricing.patches import PATCHES_FILE, read_patches
from runrails.pricing.project import ProjectPrices, parse_project
from runrails.pricing.snapshot import SnapshotDamaged
from runrails.usage import Usage

MTOK = 1_000_000
IN = Usage(input_tokens=MTOK)
OUT = Usage(output_tokens=MTOK)
BOOK = PriceBook()


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


NOW_MS = _ms("2026-11-21T12:00")


def _card(
    model: str,
    provider: str | None = None,
    *,
    book: PriceBook = BOOK,
    at: str | None = None,
    region: str | None = None,
    tier: str | None = None,
) -> PriceCard:
    now_ms = NOW_MS if at is None else _ms(at)
    return book.card(model, provider=provider, now_ms=now_ms, region=region, tier=tier)


def _rates(card: PriceCard) -> tuple[str, str]:
    def dollars(pusd: int) -> str:
        text = f"{pusd / 10**12:.6f}".rstrip("0")
        return text.removesuffix(".")

    return dollars(cost_pusd(card, IN)), dollars(cost_pusd(card, OUT))


# Contracts.


def test_the_layers_go_from_run_to_snapshot() -> None:
    """Run, contract, project, snapshot: take one away and the next one counts."""
    project = ProjectPrices(prices={"gpt-4o": Price(input="2", output="2")}, aliases={})
    run = {"gpt-4o": Price(input="4", output="4")}
    terms = [Term(model="gpt-4o", price=Price(input="3", output="3"))]
    books = [
        PriceBook(overrides=run, contract=terms, project=project),
        PriceBook(contract=terms, project=project),
        PriceBook(project=project),
        PriceBook(),
    ]
    cards = [_card("gpt-4o", book=book) for book in books]
    assert [("run", "4"), ("contract", "3"), ("project", "2"), ("snapshot", "2.5")] == [
        (card.source, _rates(card)[0]) for card in cards
    ]
    assert 4 == len({card.fingerprint for card in cards})


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2026-06-30T23:59", "2.5"),
        ("2026-07-01", "2.2"),
        ("2027-06-30T23:59", "2.2"),
        ("2027-07-01", "2.5"),
    ],
)
def test_a_percentage_holds_from_its_first_day_to_its_last(day: str, expected: str) -> None:
    """12 % off what the layers below say, both days included, UTC."""
    book = PriceBook(contract=[Term(provider="openai", percent="-12", valid_from="2026-07-01", valid_to="2027-06-30")])
    assert expected == _rates(_card("gpt-4o", book=book, at=day))[0]


def test_a_percentage_is_exact_on_every_part() -> None:
    """Cache, cliffs, tiers, calls and searches; rounded up once a call where picodollars do not suffice."""
    book = PriceBook(contract=[Term(percent="-12.5")])
    plain, agreed = (_card("gpt-5.4", book=each) for each in (BOOK, book))
    usage = Usage(input_tokens=300_007, cache_read_tokens=13, output_tokens=101, web_searches=3)
    assert -(-cost_pusd(plain, usage) * 7 // 8) == cost_pusd(agreed, usage)
    for tier in ("batch", "flex", "priority"):
        one, two = plain.tier(tier), agreed.tier(tier)
        assert one is not None
        assert two is not None
        assert -(-cost_pusd(one, usage) * 7 // 8) == cost_pusd(two, usage)
    assert ("contract", "snapshot", "-12.5 % on the price of the snapshot layer") == (
        agreed.source, agreed.over, agreed.note,
    )  # fmt: skip
    third = PriceBook(contract=[Term(percent="-33.333333")])
    assert _card("gpt-4o", book=third).denominator > 1


def test_a_percentage_follows_dated_prices_and_times_of_day() -> None:
    """What the snapshot knows to change keeps changing."""
    book = PriceBook(contract=[Term(percent="10")])
    days = ["2026-10-19", "2026-10-20", "2026-10-29"]
    assert ["0.748", "1.496", "0.77"] == [_rates(_card("mistral:mistral-large-4", book=book, at=d))[0] for d in days]
    hours = ["2026-11-21T00:59", "2026-11-21T01:00"]
    assert ["0.165", "0.33"] == [_rates(_card("deepseek-v4-flash", book=book, at=h))[0] for h in hours]


def test_a_percentage_of_a_projects_price() -> None:
    """The layer below may be the project file as well."""
    project = ProjectPrices(prices={"azure:mine": Price(input="2", output="4", call="0.01")}, aliases={})
    card = _card("mine", "azure", book=PriceBook(project=project, contract=[Term(provider="azure", percent="50")]))
    assert (("3.015", "6.015"), "project", usd("0.015")) == (_rates(card), card.over, card.call_pusd)


def test_the_closest_term_counts() -> None:
    """One for the model before one for the provider before one for all."""
    book = PriceBook(
        contract=[
            Term(percent="100"),
            Term(provider="openai", percent="-10"),
            Term(model="openai:gpt-4o", percent="-20"),
            Term(model="gpt-4o-mini", price=Price(input="1", output="2")),
        ]
    )
    names = ["gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-mini", "gpt-4", "claude-opus-5-5"]
    assert ["2", "2", "1", "27", "8"] == [_rates(_card(name, book=book))[0] for name in names]


@pytest.mark.parametrize("first", [0, 1])
def test_a_term_of_the_very_name_comes_before_one_of_the_model_it_stands_for(first: int) -> None:
    """Whichever of them was written first, and whether or not it says the provider."""
    general = Term(model="openai:gpt-4o", price=Price(input="9", output="9"))
    for exact in ("openai:gpt-4o-2024-08-06", "gpt-4o-2024-08-06"):
        terms = [general, Term(model=exact, price=Price(input="1", output="1"))]
        book = PriceBook(contract=[terms[first], terms[1 - first]])
        assert ["1", "9"] == [_rates(_card(name, book=book))[0] for name in ("gpt-4o-2024-08-06", "gpt-4o")]


def test_a_contract_can_price_what_nobody_else_has() -> None:
    """Rates need no price below them; a percentage does. Outside its days the model is as unknown as before."""
    book = PriceBook(
        contract=[
            Term(model="my-gateway:m", price=Price(input="1", output="2"), valid_to="2026-12-31"),
            Term(model="gpt-9", price=Price(input="5", output="6")),
        ]
    )
    assert [("1", "2"), ("5", "6")] == [_rates(_card(name, book=book)) for name in ("my-gateway:m", "gpt-9")]
    with pytest.raises(PriceUnknown):
        _card("my-gateway:m", book=book, at="2027-01-01")
    with pytest.raises(PriceUnknown):
        _card("gpt-9", book=PriceBook(contract=[Term(percent="-5")]))


def test_a_contract_is_not_used_for_another_provider() -> None:
    """What was agreed with Azure says nothing of OpenAI, though the data behind both is one."""
    book = PriceBook(contract=[Term(provider="azure_openai", percent="-50")])
    assert ["1.25", "2.5"] == [_rates(_card("gpt-4o", who, book=book))[0] for who in ("azure", "openai")]


@pytest.mark.parametrize(
    "terms",
    [
        [Term(percent="1"), Term(percent="2")],
        [
            Term(model="gpt-4o", percent="1", valid_to="2026-07-01"),
            Term(model="GPT-4o ", percent="2", valid_from="2026-07-01"),
        ],
        [Term(provider="nobody-knows", percent="1")],
    ],
)  # fmt: skip
def test_terms_that_contradict_each_other_are_refused(terms: list[Term]) -> None:
    """Which of two applies must not depend on their order; a provider's misspelt name must not pass for a discount."""
    with pytest.raises(ConfigError):
        _card("gpt-4o", book=PriceBook(contract=terms))


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({}, ValueError),
        ({"model": "m"}, ValueError),
        ({"percent": "-100"}, ValueError),
        ({"percent": "1001"}, ValueError),
        ({"percent": "nan"}, ValueError),
        ({"percent": "Infinity"}, ValueError),
        ({"percent": "1e-7"}, ValueError),
        ({"percent": "1e999999999"}, ValueError),
        ({"percent": 1.5}, TypeError),
        ({"percent": True}, TypeError),
        ({"percent": "ten"}, ValueError),
        ({"price": Price(call="1")}, ValueError),
        ({"model": "m", "price": "0"}, TypeError),
        ({"model": "m", "price": Price(call="1"), "percent": "1"}, ValueError),
        ({"model": " ", "percent": "1"}, ValueError),
        ({"provider": 3, "percent": "1"}, ValueError),
        ({"percent": "1", "valid_from": "soon"}, ValueError),
        ({"percent": "1", "valid_from": 20260101}, TypeError),
        ({"percent": "1", "valid_to": datetime(2026, 1, 1, tzinfo=UTC)}, TypeError),
        ({"percent": "1", "valid_from": "2026-02-01", "valid_to": "2026-01-31"}, ValueError),
    ],
)
def test_a_malformed_term_is_refused(parts: dict[str, object], error: type[Exception]) -> None:
    """When it is written, not when the first call needs it."""
    with pytest.raises(error):
        Term(**parts)  # type: ignore[arg-type]


def test_what_is_no_term_is_no_contract() -> None:
    """Like every other malformed price."""
    with pytest.raises(ConfigError, match="Term"):
        PriceBook.load(contract=[{"percent": "1"}])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="assume"):
        PriceBook.load(assume="cheapest")  # type: ignore[arg-type]


def test_the_file_holds_contracts_too() -> None:
    """Below the guard's own terms where both are as close; dates may be TOML's."""
    project = parse_project(
        b'[[contract]]\nprovider = "openai"\npercent = -10\nvalid_from = 2026-01-01\n'
        b'[[contract]]\nmodel = "gpt-4"\nprice = { input = "1", output = "2" }\n'
    )
    assert date(2026, 1, 1) == project.contract[0].valid_from
    book = PriceBook(project=project, contract=[Term(provider="openai", percent="-20")])
    assert ["2.25", "1"] == [_rates(_card(name, book=PriceBook(project=project)))[0] for name in ("gpt-4o", "gpt-4")]
    assert ["2", "1"] == [_rates(_card(name, book=book))[0] for name in ("gpt-4o", "gpt-4")]


# Patches: where the snapshot would be silently wrong.


@pytest.mark.parametrize(
    ("model", "region", "rates"),
    [
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", None, ("7.2", "18")),
        ("us-gov.anthropic.claude-opus-5", None, ("6", "30")),
        ("eu.amazon.nova-pro-v1:0", None, ("1.05", "4.2")),
        ("apac.amazon.nova-lite-v1:0", None, ("0.063", "0.252")),
        ("apac.amazon.nova-pro-v1:0", None, ("0.84", "3.36")),
        ("jp.amazon.nova-2-lite-v1:0", None, ("0.396", "3.311")),
        ("meta.llama3-70b-instruct-v1:0", None, ("2.65", "3.5")),
        ("meta.llama3-70b-instruct-v1:0", "us-east-1", ("2.65", "3.5")),
        ("meta.llama3-70b-instruct-v1:0", "sa-east-1", ("4.45", "5.88")),
        ("bedrock/sa-east-1/meta.llama3-70b-instruct-v1:0", None, ("4.45", "5.88")),
        ("arn:aws:bedrock:sa-east-1::foundation-model/meta.llama3-70b-instruct-v1:0", None, ("4.45", "5.88")),
        ("arn:aws:bedrock:sa-east-1::foundation-model/meta.llama3-70b-instruct-v1:0", "us-east-1", ("4.45", "5.88")),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", None, ("3.3", "16.5")),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "eu-central-1", ("3.3", "16.5")),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "us-gov-west-1", ("3.6", "18")),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1:1:inference-profile/us-gov.anthropic.claude-opus-5",
            None,
            ("6", "30"),
        ),
    ],
)  # fmt: skip
def test_a_region_keeps_its_price(model: str, region: str | None, rates: tuple[str, str]) -> None:
    """By geography, by region in the name or the ARN, or by the client's region."""
    card = _card(model, "bedrock", region=region)
    assert rates == _rates(card)
    if card.source == "patch":
        assert "litellm" in card.note


@pytest.mark.parametrize(
    ("model", "region"),
    [
        ("meta.llama3-70b-instruct-v1:0", "us-gov-central-9"),
        ("meta.llama3-70b-instruct-v1:0", "ap-east-1"),
        ("meta.llama3-70b-instruct-v1:0", "nowhere"),
        ("meta.llama3-8b-instruct-v1:0", "us-gov-east-1"),  # the only source says four times the output price
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "cn-north-1"),
        ("mx.anthropic.claude-sonnet-4-5-20250929-v1:0", None),
        ("sa-east-1/no-such-model", None),
    ],
)
def test_a_region_that_nobody_has_priced_is_refused(model: str, region: str | None) -> None:
    """It is not taken for another one."""
    with pytest.raises(PriceUnknown):
        _card(model, "bedrock", region=region)


def test_an_alias_leads_to_a_model_in_a_region() -> None:
    """An application inference profile does not say its model; the project does, region included."""
    arn = "arn:aws:bedrock:sa-east-1:1:application-inference-profile/abc"
    project = ProjectPrices(prices={}, aliases={arn: "bedrock/sa-east-1/meta.llama3-8b-instruct-v1:0"})
    assert ("0.5", "1.01") == _rates(_card(arn, "bedrock", book=PriceBook(project=project)))


def test_every_patch_is_dearer_than_nothing_and_says_its_source() -> None:
    """No entry is free or cheaper than half of what a region can cost, and each names where it is from."""
    patches = read_patches()
    names = patches.names("aws")
    assert len(names) > 100
    for name in names:
        found = patches.find("aws", name, None)
        assert found is not None
        card = found.windows[0].card
        assert card is not None
        assert (False, "patch") == (card.free, card.source)
        assert "litellm" in card.note


def test_damaged_patches_are_found_out(tmp_path: Path) -> None:
    """As with the snapshot: one changed byte and nothing is read."""
    copy = tmp_path / "patches.json"
    copy.write_bytes(Path(PATCHES_FILE).read_bytes().replace(b'"1.05"', b'"0.05"'))
    copy.with_suffix(".sha256").write_bytes(Path(PATCHES_FILE).with_suffix(".sha256").read_bytes())
    with pytest.raises(SnapshotDamaged):
        read_patches(copy)


# Service tiers.


@pytest.mark.parametrize(
    ("model", "provider", "tier", "rates"),
    [
        ("gpt-5", "openai", "priority", ("2.5", "20")),
        ("gpt-5", "openai", "PRIORITY ", ("2.5", "20")),
        ("gpt-5", "openai", "fast", ("2.5", "20")),
        ("gpt-5", "openai", "flex", ("0.625", "5")),
        ("gpt-5", "openai", "batch", ("0.625", "5")),
        ("gpt-5", "openai", "default", ("1.25", "10")),
        ("gpt-5", "openai", "auto", ("1.25", "10")),
        ("claude-opus-5-5", "anthropic", "batch", ("2", "10")),
        ("claude-opus-5-5", "anthropic", "standard", ("4", "20")),
        ("claude-opus-4-8", "anthropic", "fast", ("10", "50")),
        ("amazon.nova-pro-v1:0", "bedrock", "priority", ("1.4", "5.6")),
        ("amazon.nova-pro-v1:0", "bedrock", "flex", ("0.4", "1.6")),
        ("gpt-4o", "azure", "batch", ("1.25", "5")),
    ],
)
def test_a_service_tier_has_its_price(model: str, provider: str, tier: str, rates: tuple[str, str]) -> None:
    """By the provider's word for it."""
    assert rates == _rates(_card(model, provider, tier=tier))


@pytest.mark.parametrize(
    ("model", "provider", "tier"),
    [
        ("gpt-5", "openai", "scale"),
        ("gpt-4", "openai", "priority"),
        ("claude-opus-5-5", "anthropic", "priority"),
        ("claude-opus-5-5", "anthropic", "made up"),
        ("gpt-5-nano", "azure", "fast"),
    ],
)
def test_a_tier_that_nobody_has_priced_is_unknown(model: str, provider: str, tier: str) -> None:
    """None from the card, a refusal from the book: never the standard price, and never another provider's."""
    assert _card(model, provider).tier(tier) is None
    with pytest.raises(PriceUnknown, match="service tier"):
        _card(model, provider, tier=tier)


def test_an_open_tier_is_bounded_by_the_dearest_that_may_be_chosen() -> None:
    """`auto` may become priority, never batch; a named one is itself."""
    card = _card("gpt-5")
    bounds = {
        tier: dearest_pusd(card, input_tokens=1_000, output_tokens=1_000, service_tier=tier)
        for tier in (None, "auto", "default", "flex", "priority", "batch")
    }
    assert bounds["auto"] == bounds["priority"] == 2 * bounds["default"] == 4 * bounds["flex"] == 4 * bounds["batch"]
    assert bounds[None] == bounds["default"]
    with pytest.raises(PriceUnknown):
        dearest_pusd(card, input_tokens=1, output_tokens=1, service_tier="scale")


def test_a_tier_may_be_written_down() -> None:
    """In code and in the file, and only what is written is known."""
    in_code = {"m": Price(input="1", output="2", tiers={"Priority": Price(input="3", output="4")})}
    in_file = parse_project(b'[prices.m]\ninput = "1"\noutput = "2"\ntiers.priority = { input = "3", output = "4" }\n')
    for book in (PriceBook(overrides=in_code), PriceBook(project=in_file)):
        assert [("1", "2"), ("3", "4")] == [_rates(_card("m", book=book, tier=t)) for t in (None, "priority")]
        assert _card("m", book=book).tier("flex") is None
    free = _card("m", book=PriceBook(overrides={"m": "0"}))
    assert free.tier("priority") is free


@pytest.mark.parametrize(
    "tiers",
    [
        {"standard": Price(call="1")},
        {"x" * 41: Price(call="1")},
        {"flex": Price(call="1"), "FLEX": Price(call="1")},
        {"flex": "0"},
        {3: Price(call="1")},
        {"flex": Price(call="1", tiers={"a": Price(call="1")})},
        {str(number): Price(call="1") for number in range(17)},
        [],
    ],
)
def test_malformed_tiers_are_refused(tiers: object) -> None:
    """No standard tier, none twice, no tiers of tiers."""
    with pytest.raises((TypeError, ValueError)):
        Price(call="1", tiers=tiers)  # type: ignore[arg-type]


# Pictures and what is billed by the piece.


def test_pictures_have_their_rates() -> None:
    """Read, read from the cache, and made; and output of a painter whose parts nobody told is a picture."""
    card = _card("gpt-image-1.5")
    usage = Usage(
        input_tokens=100, cache_read_tokens=30, input_image_tokens=60, cache_read_image_tokens=20, output_tokens=50,
        output_image_tokens=40,
    )  # fmt: skip
    exact = 30 * 5_000_000 + 40 * 8_000_000 + 10 * 1_250_000 + 20 * 2_000_000 + 10 * 10_000_000 + 40 * 32_000_000
    assert exact == cost_pusd(card, usage)
    assert 50 * 32_000_000 == cost_pusd(card, Usage(output_tokens=50))
    assert cost_pusd(card, usage) <= dearest_pusd(card, input_tokens=100, output_tokens=50)


def test_searches_are_billed_by_the_piece() -> None:
    """Beside the tokens; and one without a price is no free one."""
    assert 3 * usd("0.01") == cost_pusd(_card("claude-opus-5-5"), Usage(web_searches=3))
    with pytest.raises(PriceUnknown, match="web_search"):
        cost_pusd(_card("gpt-4"), Usage(web_searches=1))
    with pytest.raises(PriceUnknown, match="code_execution"):
        cost_pusd(_card("claude-opus-5-5"), Usage(code_executions=1))
    own = PriceBook(overrides={"m": Price(call="1", web_search="0.5", code_execution="0.25"), "free": "0"})
    assert usd("3.25") == cost_pusd(_card("m", book=own), Usage(web_searches=4, code_executions=1))
    assert 0 == cost_pusd(_card("free", book=own), Usage(web_searches=4))


# What is assumed, because somebody asked for it.


def test_the_dearest_is_assumed_only_when_asked() -> None:
    """Of the provider if it is known, else of all there are; and it says so."""
    book = PriceBook(assume="dearest")
    by_name, by_host, of_all = (
        _card("gpt-9", book=book), _card("claude-sonnet-9", "anthropic", book=book), _card("my-own", book=book),
    )  # fmt: skip
    assert ["assumed"] * 3 == [card.source for card in (by_name, by_host, of_all)]
    assert ["openai", "anthropic", ""] == [card.provider for card in (by_name, by_host, of_all)]
    assert "dearest" in of_all.note
    assert by_name.rates.output >= _card("o1-pro").rates.output
    assert all(one <= two for one, two in zip(by_name.rates, of_all.rates, strict=True))
    assert by_host is _card("claude-sonnet-9", "anthropic", book=book)
    assert by_name.tier("whatever") is by_name
    assert "snapshot" == _card("gpt-4o", book=book).source
    with pytest.raises(PriceUnknown):
        _card("gpt-9")


@pytest.mark.parametrize("model", ["", "  ", "x" * 513, "a\x00b"])
def test_no_name_is_no_model_even_then(model: str) -> None:
    """Nor are aliases that go round in a circle."""
    circle = ProjectPrices(prices={}, aliases={"a": "b", "b": "a"})
    for name, book in ((model, PriceBook(assume="dearest")), ("a", PriceBook(project=circle, assume="dearest"))):
        with pytest.raises(PriceUnknown):
            _card(name, book=book)


def test_the_assumed_card_exceeds_every_other() -> None:
    """Whatever the model turns out to be, at any time and in any tier."""
    usage = Usage(
        input_tokens=300_000, cache_read_tokens=1_000, cache_write_1h_tokens=1_000, input_audio_tokens=5_000,
        output_tokens=9_000, reasoning_tokens=5_000, web_searches=1,
    )  # fmt: skip
    assumed = _card("no-such-model", "openai", book=PriceBook(assume="dearest"))
    for name in ("gpt-4", "o1-pro", "gpt-5.4", "gpt-realtime", "gpt-6-sol"):
        card = _card(name)
        for each in (card, *card.service_tiers):
            used = usage if each.uses.web_search is not None else replace(usage, web_searches=0)
            assert cost_pusd(each, used) <= cost_pusd(assumed, usage)


# What a layer says, and what a card is kept as.


def test_every_layer_is_asked_and_told_of() -> None:
    """In order, with a reason where it has no price; a name that means nothing says so itself."""
    book = PriceBook(
        contract=[Term(provider="aws", percent="-10")],
        project=ProjectPrices(prices={}, aliases={"a": "b", "b": "a"}),
    )
    told = book.explain("bedrock/us-east-1/meta.llama3-70b-instruct-v1:0", now_ms=NOW_MS)
    assert [("run", False), ("contract", True), ("project", False), ("patch", True), ("snapshot", True)] == [
        (said.layer, said.card is not None) for said in told
    ]
    assert all(said.why for said in told if said.card is None)
    assert ("names", None) == book.explain("a", now_ms=NOW_MS)[0][:2]
    assert 5 == len(book.explain("m", provider="my-gateway", now_ms=NOW_MS))


@pytest.mark.parametrize("model", ["gpt-4", "gpt-5.4", "gpt-image-1.5", "claude-haiku-5-5", "perplexity:sonar"])
def test_a_card_comes_back_from_its_text(model: str) -> None:
    """With the same fingerprint and the same cost for whatever usage, in every tier."""
    usage = Usage(input_tokens=300_000, cache_read_tokens=7, output_tokens=99, reasoning_tokens=3)
    for book in (BOOK, PriceBook(contract=[Term(percent="-33.3")])):
        card = _card(model, book=book)
        for each in (card, *card.service_tiers):
            again = card_from_text(each.text())
            assert (each.fingerprint, cost_pusd(each, usage)) == (again.fingerprint, cost_pusd(again, usage))
            assert fingerprint_of(each.text()) == each.fingerprint


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[1,2,3]", "[" * 5_000, json.dumps(["p", "m", "s", [1.5] * 9, [], 1, 0])]
)
def test_a_text_that_is_no_card_is_refused(text: str) -> None:
    """Instead of becoming one that costs nothing."""
    with pytest.raises(ValueError, match="price card"):
        card_from_text(text)


def test_a_text_model_keeps_the_fingerprint_it_had() -> None:
    """Cards learnt of tiers, pictures and searches; what was charged before can still be told by its fingerprint."""
    plain = _card("gpt-4")
    rates = list(plain.rates[:9])
    text = json.dumps(["openai", "gpt-4", "snapshot", rates, [], 1, 0], separators=(",", ":"))
    assert fingerprint_of(text) == plain.fingerprint
