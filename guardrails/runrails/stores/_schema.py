"""The tables of a SQLite ledger."""

from __future__ import annotations

from runrails.stores._sqlite_schema import Schema

__all__ = ["APPLICATION_ID", "LEDGER", "SCHEMA_VERSION"]

SCHEMA_VERSION = 4
"""
1: the first. 2: the facts of a call may have tags, and its usage pictures and searches, which programs that know only
version 1 cannot read; there is a table of price cards.
3: amounts may be corrected by a provider's bill, with a table that says by which; what is known of a call's end may
have more parts. 4: tables of rate limits, and of what became of notifications.
"""
APPLICATION_ID = 0x72_72_6C_67
"""The letters "rrlg" in the file's header."""

# The fingerprint is the SHA-256 of the card's text, so a line of the ledger can be worked out again and proven.
_PRICE_CARD = "CREATE TABLE price_card (fingerprint TEXT PRIMARY KEY, card TEXT NOT NULL) WITHOUT ROWID"

# Only ever added to.
_CORRECTIONS = (
    """
    CREATE TABLE correction (
        seq INTEGER PRIMARY KEY,
        reservation_id TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        source TEXT NOT NULL,
        state_before TEXT NOT NULL,
        before_pusd INTEGER NOT NULL CHECK (typeof(before_pusd) = 'integer'),
        after_pusd INTEGER NOT NULL CHECK (typeof(after_pusd) = 'integer')
    )
    """,
    "CREATE INDEX correction_of ON correction (reservation_id)",
)

# In few words: with the others they still fit into the file's first page. `full_ns` is the later of the two times: from
# then on the row is as good as none and may go.
_RATE = (
    "CREATE TABLE IF NOT EXISTS rate (scope TEXT PRIMARY KEY, requests_ns INTEGER NOT NULL, "
    "tokens_ns INTEGER NOT NULL, full_ns INTEGER NOT NULL) WITHOUT ROWID"
)
_DELIVERY = (
    "CREATE TABLE IF NOT EXISTS delivery (sender TEXT PRIMARY KEY, sent INTEGER, failed INTEGER, dropped INTEGER, "
    "sent_ms INTEGER, last_error TEXT, error_ms INTEGER) WITHOUT ROWID"
)
_MOMENTARY = (_RATE, "CREATE INDEX IF NOT EXISTS rate_full ON rate (full_ns)", _DELIVERY)

# Amounts are checked to be integers because SQLite turns a sum past 2^63 into a float without a word.
_TABLES = (
    """
    CREATE TABLE account (
        id INTEGER PRIMARY KEY,
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        unit TEXT NOT NULL,
        code_limit INTEGER CHECK (code_limit IS NULL OR (typeof(code_limit) = 'integer' AND code_limit >= 0)),
        operator_limit INTEGER
            CHECK (operator_limit IS NULL OR (typeof(operator_limit) = 'integer' AND operator_limit >= 0)),
        spent INTEGER NOT NULL DEFAULT 0 CHECK (typeof(spent) = 'integer' AND spent >= 0),
        held INTEGER NOT NULL DEFAULT 0 CHECK (typeof(held) = 'integer' AND held >= 0),
        UNIQUE (scope, period, unit)
    )
    """,
    """
    CREATE TABLE operator_limit (
        scope TEXT NOT NULL,
        unit TEXT NOT NULL,
        amount INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount >= 0),
        PRIMARY KEY (scope, unit)
    ) WITHOUT ROWID
    """,
    # One row is the reservation, the record that makes its verbs repeatable, and the usage record of its call.
    # `holds` is JSON [[account id, amount], ...], where it was raised with the first amount behind it;
    # `charges` is JSON [amount, ...] in the same order, or NULL if each is actual_pusd.
    # `stand_in` is 1 while its owner's amount is a stand-in, 2 once a bill has corrected it.
    # `seq` is at_ms * 2^20 and counts on within a millisecond: rows lie in order of time, and a month is a range of
    # rows. It spares the hot path an index.
    """
    CREATE TABLE reservation (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'released', 'unresolved', 'late')),
        at_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        resolved_ms INTEGER,
        on_expiry TEXT NOT NULL,
        holds TEXT NOT NULL,
        charges TEXT,
        estimated_pusd INTEGER NOT NULL CHECK (typeof(estimated_pusd) = 'integer'),
        actual_pusd INTEGER CHECK (actual_pusd IS NULL OR typeof(actual_pusd) = 'integer'),
        stand_in INTEGER NOT NULL DEFAULT 0,
        would_refuse TEXT,
        user TEXT,
        run TEXT,
        facts TEXT,
        result TEXT
    )
    """,
    "CREATE INDEX reservation_open ON reservation (expires_ms, id) WHERE state = 'held'",
    "CREATE INDEX reservation_run ON reservation (run) WHERE run IS NOT NULL",
    """
    CREATE TABLE warning (
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        unit TEXT NOT NULL,
        mark TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (scope, period, unit, mark)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE zone (scope TEXT PRIMARY KEY, zone TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE run (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        user TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        mode TEXT NOT NULL,
        stop_reason TEXT,
        report TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX run_ended ON run (ended_ms, id)",
    _PRICE_CARD,
    *_CORRECTIONS,
    *_MOMENTARY,
)
LEDGER = Schema(
    noun="ledger",
    setting="RUNRAILS_STORE",
    application_id=APPLICATION_ID,
    version=SCHEMA_VERSION,
    tables=_TABLES,
    steps=((_PRICE_CARD,), _CORRECTIONS, _MOMENTARY),
)
