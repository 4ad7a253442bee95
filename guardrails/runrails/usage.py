"""Token usage in one canonical form, whatever the provider's wire form was."""

from __future__ import annotations

from runrails.values import value

__all__ = ["TOKENS_MAX", "Usage"]

TOKENS_MAX = 10**12
"""More tokens than any call can have; larger reports are refused as malformed."""
_INT_ALONE = frozenset({int})
_NO_PARTS = (0,) * 12
_NO_SOUND = (0,) * 5


@value
class Usage:
    """
    What a call used. Every part is contained in its total: the cache parts, audio and pictures in `input_tokens`,
    reasoning, audio and pictures in `output_tokens`. A total that nobody reported has no `Usage`: missing is not zero.

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
    input_image_tokens: int = 0
    """Pictures, where the provider reports them apart from text."""
    output_image_tokens: int = 0
    cache_read_image_tokens: int = 0
    """Pictures that were read from the cache: part of both `cache_read_tokens` and `input_image_tokens`."""
    web_searches: int = 0
    """Searches that the provider ran itself, billed by the piece and not in tokens."""
    code_executions: int = 0
    """Programs that the provider ran, billed like its searches."""

    def __post_init__(self) -> None:
        """Refuse counts that cannot be true."""
        counts = (
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_5m_tokens,
            self.cache_write_1h_tokens,
            self.input_audio_tokens,
            self.reasoning_tokens,
            self.output_audio_tokens,
            self.cache_read_audio_tokens,
            self.input_image_tokens,
            self.output_image_tokens,
            self.cache_read_image_tokens,
            self.web_searches,
            self.code_executions,
        )
        # bool is an int to isinstance, and True tokens are a mistake, so the exact type is asked for.
        whole = _INT_ALONE.issuperset(map(type, counts))
        if whole and counts[2:] == _NO_PARTS and 0 <= counts[0] <= TOKENS_MAX and 0 <= counts[1] <= TOKENS_MAX:
            return
        if not whole or min(counts) < 0 or max(counts) > TOKENS_MAX:
            raise ValueError("token counts must be whole numbers from 0 to 10**12")
        if counts[5] == 0 and counts[7:12] == _NO_SOUND:
            # By far the most reports: neither audio nor pictures.
            entered, left, read, five, hour, _, reasoning = counts[:7]
            if entered < read + five + hour or left < reasoning:
                raise ValueError("the parts of a token count exceed their total")
            return
        if self.plain_input_tokens < 0 or self.plain_output_tokens < 0:
            raise ValueError("the parts of a token count exceed their total")
        if self.cache_read_audio_tokens > min(self.cache_read_tokens, self.input_audio_tokens):
            raise ValueError("cached audio exceeds the cached tokens or the audio tokens it is part of")
        if self.cache_read_image_tokens > min(
            self.cache_read_tokens - self.cache_read_audio_tokens, self.input_image_tokens
        ):
            raise ValueError("cached pictures exceed the cached tokens or the pictures they are part of")

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
        """Input that was neither read from the cache nor written to it; audio and pictures included."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_5m_tokens - self.cache_write_1h_tokens

    @property
    def plain_input_tokens(self) -> int:
        """Input that is neither cached nor audio nor a picture: what the plain input rate applies to."""
        uncached_audio = self.input_audio_tokens - self.cache_read_audio_tokens
        return self.uncached_input_tokens - uncached_audio - self.input_image_tokens + self.cache_read_image_tokens

    @property
    def plain_output_tokens(self) -> int:
        """Output that is neither reasoning nor audio nor a picture."""
        return self.output_tokens - self.reasoning_tokens - self.output_audio_tokens - self.output_image_tokens

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
            input_image_tokens=self.input_image_tokens + other.input_image_tokens,
            output_image_tokens=self.output_image_tokens + other.output_image_tokens,
            cache_read_image_tokens=self.cache_read_image_tokens + other.cache_read_image_tokens,
            web_searches=self.web_searches + other.web_searches,
            code_executions=self.code_executions + other.code_executions,
        )
