"""API keys: ``rr_live_…``, shown once, kept as a hash, with scopes and a budget of their own."""

from __future__ import annotations

from runrails.identity.apikeys.format import SCANNER_REGEX
from runrails.identity.apikeys.hashing import Peppers
from runrails.identity.apikeys.keys import ApiKeys
from runrails.identity.apikeys.records import ApiKeyInfo

__all__ = ["SCANNER_REGEX", "ApiKeyInfo", "ApiKeys", "Peppers"]
