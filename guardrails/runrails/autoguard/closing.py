"""What is done once when a run is over: it is summed up, shown, and kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

from runrails.autoguard.folder import Folder
from runrails.autoguard.session import RUN_ID, STARTED
from runrails.autoguard.variables import SESSION
from runrails.clocks import system_ms
from runrails.errors import RunrailsError
from runrails.ledger import RunArchive

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from runrails.autoguard.plan import Plan
    from runrails.autoguard.session import Session
    from runrails.autoguard.summary import Summary

__all__ = ["STDOUT", "close_run", "sum_up", "write_file"]

STDOUT = "-"


def sum_up(environment: Mapping[str, str], plan: Plan) -> Summary:
    """
    Read what the run has come to, and keep its record in the store.

    Raises:
        StoreUnavailable: The ledger is out of reach.
    """
    from runrails.autoguard.showing import as_record
    from runrails.autoguard.summary import gather
    from runrails.stores import open_store

    store = open_store(environment.get("RUNRAILS_STORE"))
    try:
        summary = gather(
            Folder(environment[SESSION]), store, plan, run_id=environment[RUN_ID],
            started_ms=int(environment[STARTED]), now_ms=system_ms(),
        )  # fmt: skip
        record = as_record(summary)
        if record is not None and isinstance(store, RunArchive):
            store.save_run(record)
        return summary
    finally:
        store.close()


def write_file(path: str, summary: Summary, exit_code: int | None) -> None:
    """
    The summary as JSON in a file, or on standard output for `-`.

    Raises:
        OSError: The file cannot be written.
    """
    import json
    from pathlib import Path

    from runrails.autoguard.showing import as_dict

    text = json.dumps(as_dict(summary, exit_code), indent=2) + "\n"
    if path == STDOUT:
        stream = cast("TextIO | None", sys.stdout)
        if stream is None:
            raise OSError("standard output is closed")
        stream.write(text)
        stream.flush()
    else:
        Path(path).write_text(text, encoding="utf-8")


def close_run(session: Session) -> None:
    """At the end of a run's first process where nobody started it who does this. It must not change how that ended."""
    from runrails.autoguard.showing import as_text
    from runrails.autoguard.telling import say

    try:
        if session.folder.modules() or next(session.folder.reports(), None) is not None:
            summary = sum_up(session.environment, session.plan)
            if session.plan.summary and (summary.model_calls or summary.stop or summary.refused):
                say(as_text(summary))
            if session.plan.summary_file is not None:
                write_file(session.plan.summary_file, summary, None)
    except (RunrailsError, OSError) as error:
        say(f"runrails: no summary: {error}")
    finally:
        session.folder.remove()
