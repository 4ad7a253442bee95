"""Token usage in one canonical form, whatever the provider's wire form was."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TOKENS_MAX", "Usage"]

TOKENS_MAX = 10**12
"""More tokens than any call can have; larger reports are refused as malformed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What a call used. Every part is contained in its total: the cache parts and audio in `input_tokens`, reasoning and
    audio in `output_tokens`. A total that nobody reported has no `Usage`: missing is not zero.

    Raises:
        ValueError: A count is negative, not an int, absurdly large, or the parts exceed their total.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    """Written to the provider's cache for five minutes, or for a time that was not reported."""
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_audio_tokens: int = 0
    cache_read_audio_tokens: int = 0
    """Audio that was read from the cache: part of both `cache_read_tokens` and `input_audio_tokens`."""

    def __post_init__(self) -> None:
        """Refuse counts that cannot be true."""
        counts = (
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            self.input_audio_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.output_audio_tokens,
            self.cache_read_audio_tokens,
        )
        for count in counts:
            # bool is an int to isinstance, and True tokens are a mistake, so the exact type is asked for.
            if type(count) is not int or not 0 <= count <= TOKENS_MAX:
                raise ValueError("token counts must be whole numbers from 0 to 10**12")
        if self.plain_input_tokens < 0 or self.plain_output_tokens < 0:
            raise ValueError("the parts of a token count exceed their total")
        if self.cache_read_audio_tokens > min(self.cache_read_tokens, self.input_audio_tokens):
            raise ValueError("cached audio exceeds the cached tokens or the audio tokens it is part of")

    @property
    def total_tokens(self) -> int:
        """Input plus output. Providers' own totals disagree with their parts and are never used."""
        return self.input_tokens + self.output_tokens

    @property
    def cache_write_tokens(self) -> int:
        """Everything written to the provider's cache."""
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def uncached_input_tokens(self) -> int:
        """Input that was neither read from the cache nor written to it; audio included."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_5m_tokens - self.cache_write_1h_tokens

    @property
    def plain_input_tokens(self) -> int:
        """Input that is neither cached nor audio: what the plain input rate applies to."""
        return self.uncached_input_tokens - self.input_audio_tokens + self.cache_read_audio_tokens

    @property
    def plain_output_tokens(self) -> int:
        """Output that is neither reasoning nor audio."""
        return self.output_tokens - self.reasoning_tokens - self.output_audio_tokens

    def __add__(self, other: Usage) -> Usage:
        """The sum of two calls, part by part."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_5m_tokens=self.cache_write_5m_tokens + other.cache_write_5m_tokens,
            cache_write_1h_tokens=self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            input_audio_tokens=self.input_audio_tokens + other.input_audio_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            output_audio_tokens=self.output_audio_tokens + other.output_audio_tokens,
            cache_read_audio_tokens=self.cache_read_audio_tokens + other.cache_read_audio_tokens,
        )
