"""What the tests of the fake provider share: usages worth sending over a wire, and a price to bill by."""

from __future__ import annotations

from runrails.testing.provider import ToolUse
from runrails.usage import Usage

# Numbers no tokenizer could derive from the prompts used here.
FULL = Usage(
    input_tokens=4321, cache_read_tokens=1000, cache_write_5m_tokens=200, output_tokens=777, reasoning_tokens=70
)
PLAIN = Usage(input_tokens=1000, output_tokens=500)
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TWO_CALLS = (ToolUse("weather", {"city": "Bern"}), ToolUse("weather", {"city": "Rom"}))


def price(model: str, usage: Usage) -> int:
    """Three picodollars a token in, seven out."""
    del model
    return 3 * usage.input_tokens + 7 * usage.output_tokens
