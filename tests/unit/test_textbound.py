"""What of a text is known to take fewer tokens than bytes, and what is not."""

from __future__ import annotations

import json
import random
import string
import unicodedata

import pytest
import quicktok

from runrails.exactcount import counted, encoding_of
from runrails.textbound import SHORT_CHARS, bytes_bound, text_bound

TOKENIZERS = [quicktok.get_encoding(name) for name in ("o200k_base", "cl100k_base", "llama3", "qwen3")]
PROSE = (
    "The order was found, but its payment has not been received yet. Please ask the customer for another card, and "
    "return the parcel to the warehouse when there is no answer within three days. "
) * 4


def most_tokens(text: str) -> int:
    """The most tokens that any of four real tokenizers makes of it, as it is or normalised first."""
    forms = {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text)}
    return max(tokenizer.count(form) for tokenizer in TOKENIZERS for form in forms)


def long(text: str) -> str:
    """As often as it takes for a closer look."""
    return text * (SHORT_CHARS // max(len(text), 1) + 2)


def test_a_short_text_is_its_bytes() -> None:
    """A closer look would not pay."""
    assert [5, 7, 3] == [text_bound(("hello",)), text_bound(("Größe",)), text_bound(("\ud800",))]
    assert SHORT_CHARS == text_bound(("t" * SHORT_CHARS,))


def test_prose_is_bounded_well_below_its_bytes() -> None:
    """Usual words are a token or two."""
    bound = text_bound((PROSE,))
    assert bound < len(PROSE) * 0.6
    assert bound >= most_tokens(PROSE)


@pytest.mark.parametrize(
    "text",
    ["zqzvjqxz", "qo", "zx", "jv", "vj", "bq", "wz", "xgxg", "mh", "hbhb", "b\n", "x ", "1 2 3 ", "a,b;c.d-e_f ",
     "0123456789", "\t \n", "x\r\n", "GATTACA", "JBSWY3DPEHPK3PXP",
     "MFRGGZDFMZTWQ2LK", "3f786850e387550fdab8", "aGVsbG8gd29ybGQ="],
)  # fmt: skip
def test_what_falls_apart_into_letters_keeps_its_bytes(text: str) -> None:
    """Rare pairs of letters are a token each letter: a rule by classes of characters would be too low by a third."""
    text = long(text)
    assert text_bound((text,)) >= len(text) * 0.85
    assert text_bound((text,)) >= most_tokens(text)


@pytest.mark.parametrize("text", ["'lt ", "'PI,", "'ny ", "éPI "])
def test_what_glues_is_no_letter(text: str) -> None:
    """An apostrophe and its word make no other word."""
    text = long(text)
    assert text_bound((text,)) >= len(text) * 0.85
    assert text_bound((text,)) >= most_tokens(text)


@pytest.mark.parametrize("around", ["é", "'", "A", "z", "ſ", "\u0301", "龍", "\u200d"])
def test_a_word_inside_of_another_is_none(around: str) -> None:
    """Only where no letter touches it is a word a piece of its own."""
    apart, glued = long("status , "), long(f"status{around}")
    assert text_bound((apart,)) < bytes_bound(apart) * 0.6
    assert text_bound((glued,)) > bytes_bound(glued) * 0.6
    assert text_bound((glued,)) >= most_tokens(glued)


def test_texts_side_by_side_may_be_one_word() -> None:
    """A provider may join them, so what a text begins and ends with is no whole word."""
    halves = ("the ", "status", "es ") * 60
    assert text_bound(halves) >= most_tokens("".join(halves))
    assert text_bound(("status",) * 60) > text_bound((" status " * 60,))


def test_normalising_is_allowed_for() -> None:
    """Fifty times U+FDFA is 150 bytes, and 1,650 after NFKC; U+0344 grows by NFC."""
    assert 300 * 33 == bytes_bound("\ufdfa" * 300)
    assert most_tokens("\ufdfa" * 300) <= text_bound(("\ufdfa" * 300,)) <= 300 * 33
    assert 300 * 4 == text_bound(("\u0344" * 300,))
    assert 600 * 2 == text_bound(("\u0308",) * 600)


@pytest.mark.parametrize(
    ("text", "most"),
    [("Заказ не найден. Проверьте номер и попробуйте ещё раз. ", 0.75),
     ("注文が見つかりません。番号を確認してください。", 0.8), ("这是一个没有的文件，不能使用。", 0.8)],
)  # fmt: skip
def test_usual_letters_of_other_scripts_take_fewer_than_their_bytes(text: str, most: float) -> None:
    """Where each is a token in every tokenizer that could be measured."""
    text = long(text)
    assert text_bound((text,)) < bytes_bound(text) * most
    assert text_bound((text,)) >= most_tokens(text)


@pytest.mark.parametrize(
    ("text", "most"),
    [("لم يتم العثور على الطلب. ", 0.9), ("Où a-t-elle été gênée à l'été ? ", 0.95),
     ("ไม่พบคำสั่งซื้อ", 0.7), ("ऑर्डर नहीं मिला। ", 0.8), ("অর্ডার পাওয়া যায়নি। ", 0.9), ("შეკვეთა ვერ მოიძებნა. ", 0.8),
     ("주문을 찾을 수 없습니다. ", 0.8), ("Không tìm thấy đơn hàng này. ", 0.95)],
)  # fmt: skip
def test_bytes_that_every_tokenizer_joins_are_not_counted_twice(text: str, most: float) -> None:
    """Two bytes that are a token together never both stay single: two tokens of three bytes, three of two letters."""
    text = long(text)
    assert most_tokens(text) <= text_bound((text,)) < bytes_bound(text) * most


@pytest.mark.parametrize(
    ("letter", "tokens"),
    [("ฒ", 2), ("ढ", 2), ("ழ", 2), ("ქ", 2), ("ऋ", 3), ("鸡", 3), ("ψ", 2), ("ω", 2), ("ط", 2), ("م", 1.5), ("é", 1.5)],
)  # fmt: skip
def test_what_is_left_of_a_letter(letter: str, tokens: float) -> None:
    """Its bytes, less the one that must have joined another; all of them where it is rare or some lack that pair."""
    bound = text_bound((letter * 600,))
    assert most_tokens(letter * 600) <= bound
    assert 600 * tokens <= bound <= 600 * tokens + 1


@pytest.mark.parametrize(
    "text",
    ["Պատվերը չի գտնվել։ ", "ઓર્ડર મળ્યો નથી. ", "ඇණවුම සොයාගත නොහැක. ", "រកមិនឃើញ", "ትዕዛዝ አልተገኘም። ", "ΔΕΝ ΒΡΕΘΗΚΕ, "],
)
def test_scripts_that_fall_back_to_bytes_keep_them(text: str) -> None:
    """And their spaces: some tokenizer has no token for what begins their letters."""
    text = long(text)
    assert text_bound((text,)) == bytes_bound(text)


@pytest.mark.parametrize("after", ["", "x", "x = 1", "\n", "\t", '"a": 1,', "é", "."])
def test_indented_lines_are_bounded_below_their_spaces(after: str) -> None:
    """Four spaces are two tokens at most, however many there are and whatever comes after them."""
    for indent in range(1, 41):
        text = long(" " * indent + after + "\n")
        assert most_tokens(text) <= text_bound((text,)) <= bytes_bound(text) - text.count("    ") * 2


def _pieces(draw: random.Random) -> str:
    words = [
        "the",
        "and",
        "status",
        "return",
        "класс",
        "的",
        "一个",
        "日本",
        "ありがとう",
        "가나다",
        "ß",
        "½",
        "ﬁ",
        "\ud800",
        "ไม่พบ",
        "नहीं",
        "לא",
        "على",
        "    ",
        '":',
        '",',
    ]
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(words) + draw.choice(string.printable)
    if kind == 1:
        return "".join(draw.choices("abcdeilmnoprstuy ", k=draw.randrange(1, 20)))
    if kind == 2:
        return "".join(draw.choices("zqxjvkwgfh", k=draw.randrange(1, 6)))
    if kind == 3:
        return "".join(
            chr(draw.choice([*range(32, 0x600), *range(0x3040, 0x3100), *range(0x4E00, 0x5200)])) for _ in range(4)
        )
    return draw.choice(string.printable) * draw.randrange(1, 12)


@pytest.mark.parametrize("seed", range(40))
def test_never_below_the_truth_on_anything_mixed(seed: int) -> None:
    """Words, runs, rare letters, scripts, marks and repeated characters in any order and any split."""
    draw = random.Random(seed)
    texts = tuple("".join(_pieces(draw) for _ in range(draw.randrange(1, 60))) for _ in range(draw.randrange(1, 8)))
    bound = text_bound(texts)
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    assert bound >= sum(most_tokens(text) for text in clean)
    assert bound >= most_tokens("".join(clean))
    assert bound <= sum(map(bytes_bound, texts)) + len(texts) + 2


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4o-mini", "o200k_base"), ("azure", "gpt-4o", "o200k_base"), ("openai", "gpt-5.1", "o200k_base"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::x", "o200k_base"), ("openai", "o3-mini", "o200k_base"),
        ("openai", "gpt-4-turbo", "cl100k_base"), ("openai", "gpt-3.5-turbo-0125", "cl100k_base"),
        ("openai", "text-embedding-3-small", "cl100k_base"), ("groq", "llama-3.3-70b-versatile", "llama3"),
        ("aws", "meta.llama3-1-70b-instruct-v1:0", "llama3"), ("fireworks", "meta-llama/Llama-3.1-8B", "llama3"),
        ("together", "Qwen/Qwen3-32B", "qwen3"),
        ("openai", "gpt-6-sol", None), ("openai", "gpt-4o3", None), ("openai", "gpt-oss-120b", None),
        ("anthropic", "claude-sonnet-4-5", None), ("openrouter", "meta-llama/llama-3.1-8b-instruct", None),
        ("groq", "deepseek-r1-distill-llama-70b", None), ("groq", "llama-4-scout", None), ("x", "qwen3.5-32b", None),
        ("", "gpt-4o", None), ("x", "qwen3-max", None),
    ],
)  # fmt: skip
def test_which_models_have_a_published_tokenizer(provider: str, model: str, expected: str | None) -> None:
    """No name is taken for another's: what is not known is bounded, not counted."""
    assert expected == encoding_of(provider, model)


def test_the_count_is_close_and_takes_anything() -> None:
    """Lone surrogates and the names of special tokens are text; what is not NFC is bounded where it is normalised."""
    odd = ("a\ud800b" * 200, "<|endoftext|>" * 50, PROSE)
    exact = counted(odd, "openai", "gpt-4o")
    assert exact is not None
    truth = quicktok.get_encoding("o200k_base").count(PROSE)
    alone = counted((PROSE,), "openai", "gpt-4o")
    assert alone is not None
    assert truth <= alone <= truth * 1.03 + 4
    assert exact >= alone
    assert bytes_bound("e\u0301" * 300) <= (counted(("e\u0301" * 300,), "x", "qwen3-8b") or 0)
    arguments = json.dumps(dict.fromkeys(string.ascii_lowercase, 1), separators=(",", ":"))
    spaced = quicktok.get_encoding("o200k_base").count(json.dumps(json.loads(arguments)))
    assert spaced <= (counted((arguments,), "openai", "gpt-4o") or 0)
    assert None is counted((PROSE,), "anthropic", "claude-sonnet-4-5")
