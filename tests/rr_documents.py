"""What the tests of documents share: engines of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rr_dynamo import ENDPOINT
from runrails.documents import Address, DocumentStore
from runrails.documents.memory import MemoryDocuments
from runrails.documents.sqlite import SQLiteDocuments

DOCUMENT_KINDS = ("memory", "sqlite", *(("dynamodb",) if ENDPOINT else ()))
ALICE = Address("credential", "alice", "user.openai.default")


def open_documents_kind(kind: str, directory: Path, clock: Callable[[], int]) -> DocumentStore:
    """A fresh engine of one kind; SQLite ones in `directory`, DynamoDB ones on the server the environment names."""
    if kind == "memory":
        return MemoryDocuments(clock=clock)
    if kind == "dynamodb":
        engine: DocumentStore = open_dynamodb_documents(clock)
        return engine
    return SQLiteDocuments(directory / "vault.db", clock=clock, synchronous="NORMAL")


def open_dynamodb_documents(clock: Callable[[], int] | None, *, table: str | None = None, **options: Any) -> Any:
    """An engine in a fresh table, or in one that is there."""
    from rr_dynamo import _Shared, new_table
    from runrails_aws.dynamodb.documents import DynamoDBDocuments

    return DynamoDBDocuments(table or new_table(), clock=clock, **{"client": _Shared, **options})
