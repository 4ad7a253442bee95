"""Signed tokens for services (RFC 7519), under rules that leave nothing to a token's own words (RFC 8725)."""

from runrails.identity.jwt.keyset import Key, Keys, KeySet
from runrails.identity.jwt.remote import RemoteKeys
from runrails.identity.jwt.tokens import Tokens

__all__ = ["Key", "KeySet", "Keys", "RemoteKeys", "Tokens"]
