"""
The folder through which the processes of one run, and whoever started them, leave word for each other: the stop, what
was guarded, and what each of them did. The money is not in here: its place is the ledger.

Nothing that fails in here fails the program: without its folder a process is guarded all the same, by the ledger.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Folder", "new_path"]

_STOP = "stop.json"
_RUNS = "runs"
_REPORT = "report."
_SDK = "sdk."
_LOST = "lost."
BYTES_MAX = 4_000_000
"""Largest word that is read."""
PROCESSES_MAX = 10_000
RUNS_MAX = 1_000


def new_path() -> str:
    """A path nobody has; the folder is made when there is something to leave."""
    from tempfile import gettempdir

    return os.path.join(gettempdir(), f"runrails-{os.urandom(12).hex()}")  # noqa: PTH118 -- pathlib costs 3 ms at every start of a Python


class Folder:
    """The folder of one run."""

    def __init__(self, path: str) -> None:
        self.path = path

    # Leaving word.

    def started(self) -> None:
        """A Python has loaded the guard."""
        self._add("seen", "")

    def guarded(self, module: str) -> None:
        """An SDK has been patched."""
        self._add(_SDK + module, "")

    def opened(self, run_id: str) -> None:
        """A run was opened inside the program's run, by runrails code of its own."""
        self._add(_RUNS, f"{run_id}\n")

    def stop(self, fields: Mapping[str, object]) -> None:
        """The run is stopped, in every process; the first stop stays."""
        if self.stopped() is None:
            self._write(_STOP, fields)

    def go_on(self) -> None:
        """The run was resumed."""
        try:
            os.unlink(self._at(_STOP))  # noqa: PTH108 -- see new_path
        except OSError:
            return

    def report(self, name: str, fields: Mapping[str, object]) -> None:
        """What a process did; again with the same name replaces it."""
        if os.path.isdir(self.path):  # noqa: PTH112 -- see new_path. If not, the run has been summed up without us.
            self._write(f"{_REPORT}{name}.json", fields)

    # Reading it.

    def stopped(self) -> Mapping[str, object] | None:
        """The stop, if there is one. Cheap while there is none."""
        return self._read(_STOP) if os.path.exists(self._at(_STOP)) else None  # noqa: PTH110 -- see new_path

    def was_seen(self) -> bool:
        """Whether any Python has loaded the guard."""
        return os.path.exists(self._at("seen"))  # noqa: PTH110 -- see new_path

    def modules(self) -> list[str]:
        """What was patched, in any process: the names of the SDKs' packages."""
        return sorted({name.split(".")[1] for name in self._names() if name.startswith(_SDK)})

    def without_runrails(self) -> list[str]:
        """Pythons that have no runrails; what they would have imported was refused. `sitecustomize` writes it."""
        lost = [self._text(name).strip() for name in self._names() if name.startswith(_LOST)]
        return sorted({text for text in lost if text})

    def runs(self) -> list[str]:
        """The runs that were opened inside the program's run."""
        return list(dict.fromkeys(self._text(_RUNS).split()))[:RUNS_MAX]

    def reports(self) -> Iterator[Mapping[str, object]]:
        """What the processes did."""
        for name in self._names()[:PROCESSES_MAX]:
            if name.startswith(_REPORT):
                found = self._read(name)
                if found is not None:
                    yield found

    def remove(self) -> None:
        """Nobody needs it any more."""
        from shutil import rmtree

        rmtree(self.path, ignore_errors=True)

    # Inside.

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)  # noqa: PTH118 -- see new_path

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))  # noqa: PTH208 -- see new_path
        except OSError:
            return []

    def _add(self, name: str, text: str) -> None:
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)  # noqa: PTH103 -- see new_path
            with open(self._at(name), "a", encoding="utf-8") as file:  # noqa: PTH123 -- see new_path
                file.write(text)
        except OSError:
            return

    def _write(self, name: str, fields: Mapping[str, object]) -> None:
        """Whole or not at all: somebody may be reading."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)  # noqa: PTH103 -- see new_path
            draft = self._at(f"{os.urandom(8).hex()}.draft")
            with open(draft, "w", encoding="utf-8") as file:  # noqa: PTH123 -- see new_path
                json.dump(fields, file)
            os.replace(draft, self._at(name))  # noqa: PTH105 -- see new_path
        except OSError:
            return

    def _text(self, name: str) -> str:
        try:
            with open(self._at(name), encoding="utf-8", errors="replace") as file:  # noqa: PTH123 -- see new_path
                return file.read(BYTES_MAX)
        except OSError:
            return ""

    def _read(self, name: str) -> Mapping[str, object] | None:
        try:
            found: object = json.loads(self._text(name))
        except ValueError:
            return None
        return cast("Mapping[str, object]", found) if isinstance(found, dict) else None
