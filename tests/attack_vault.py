"""
Every stored key at every other place: `python tests/attack_vault.py` (100 users × 3 providers × 2 versions, all pairs).

Each record is put where each other one stands, and the vault's way of opening is asked for it. What is counted is how
many open at their own place, how many others were tried, and how many of those opened.
"""

from __future__ import annotations

import sys
import time

PROVIDERS = ("openai", "anthropic", "bedrock")


def swapped(*, users: int, versions: int = 2) -> tuple[int, int, int]:
    """(opened at home, tried elsewhere, opened elsewhere)."""
    from rr_vault import ring
    from runrails.credentials import CredentialId, CredentialUnreadable
    from runrails.credentials.envelope import open_, seal
    from runrails.secretvalue import Secret

    wrapper = ring()
    records = []
    for user in range(users):
        for provider in PROVIDERS:
            for version in range(1, versions + 1):
                # What is public is the same for all, so that nothing but the place tells them apart.
                context = CredentialId(f"user:u{user}", provider).context(version, b"{}")
                secret = Secret(f"{user}/{provider}/{version}")
                records.append((context, secret, seal(secret, context, wrapper)))
    home = sum(open_(blob, context, wrapper) == secret for context, secret, blob in records)
    tried = opened = 0
    for place, (context, _, _) in enumerate(records):
        for origin, (_, _, blob) in enumerate(records):
            if origin == place:
                continue
            tried += 1
            try:
                open_(blob, context, wrapper)
            except CredentialUnreadable:
                continue
            opened += 1
    return home, tried, opened


if __name__ == "__main__":
    began = time.monotonic()
    at_home, elsewhere, wrong = swapped(users=int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    took_s = time.monotonic() - began
    print(f"{at_home} opened where they belong; of {elsewhere:,} elsewhere {wrong} opened ({took_s:.1f} s)")
    sys.exit(1 if wrong else 0)
