"""
Stands first on the path of a Python that `runrails run` has started, and is imported when that Python starts. Loads the
guard, and then the `sitecustomize` that would have been imported instead.

It must work in any Python, also in one that has no runrails: there the SDKs it could not guard cannot be imported.
"""

# ruff: noqa: INP001, PTH100, PTH103, PTH118, PTH120, PTH123, UP031 -- no package, and it must run in Pythons of any age

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


class _NotHere:
    """Refuses the import of what cannot be guarded in here; a program that does not need it runs as ever."""

    def __init__(self, names: "list[str]") -> None:
        self._names = names

    def find_spec(self, name: str, *_: object) -> None:
        if name in self._names:
            raise ImportError(
                "runrails guards this program, but is not installed for %s, or does not load there: %s was not "
                "imported. Install it there: %s -m pip install runrails" % (sys.executable, name, sys.executable),
                name=name,
            )


def _guard() -> None:
    try:
        from runrails.autoguard.boot import start
    except Exception:  # noqa: BLE001 -- not there, damaged or too new for this Python: it would run without the guard
        sys.meta_path.insert(0, _NotHere(os.environ.get("RUNRAILS_AUTOGUARD", "").split(",")))
        _leave_word()
    else:
        start()


def _leave_word() -> None:
    try:
        os.makedirs(os.environ["RUNRAILS_SESSION"], mode=0o700, exist_ok=True)
        with open(os.path.join(os.environ["RUNRAILS_SESSION"], "lost.%d" % os.getpid()), "w") as file:
            file.write(sys.executable)
    except (KeyError, OSError):
        pass


def _next_one() -> None:
    """Import the `sitecustomize` that this one stands before, if there is one."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    this = sys.modules.pop("sitecustomize", None)
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if this is not None:
            sys.modules.setdefault("sitecustomize", this)


_guard()
_next_one()
