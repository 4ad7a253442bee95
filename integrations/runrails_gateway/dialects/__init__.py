"""What requests, answers and errors look like: OpenAI's and Anthropic's HTTP, read and written without their SDKs."""

from __future__ import annotations

from runrails_gateway.dialects.asking import named_model
from runrails_gateway.dialects.base import Ask, Dialect
from runrails_gateway.dialects.bodies import with_changes
from runrails_gateway.dialects.chat import CHAT
from runrails_gateway.dialects.count_tokens import COUNT_TOKENS
from runrails_gateway.dialects.embeddings import EMBEDDINGS
from runrails_gateway.dialects.messages import MESSAGES
from runrails_gateway.dialects.responses import RESPONSES
from runrails_gateway.dialects.telling import Told, tell

__all__ = [
    "CHAT", "COUNT_TOKENS", "EMBEDDINGS", "MESSAGES", "RESPONSES", "Ask", "Dialect", "Told", "named_model", "tell",
    "with_changes",
]  # fmt: skip
