"""Doing something as soon as a module has been imported, without importing it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["ImportWatcher"]


class _Loader(Protocol):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None: ...

    def exec_module(self, module: ModuleType) -> None: ...


class ImportWatcher:
    """
    A finder that stands before all others and lets them find; what it watches is told of once it has been executed.

    What the callback raises leaves the import statement, and the module is not imported.
    """

    def __init__(self, names: Iterable[str], imported: Callable[[str], None]) -> None:
        self.names = frozenset(names)
        self._imported = imported

    def install(self) -> None:
        """Watch from now on. What has been imported already is told of at once."""
        sys.meta_path.insert(0, self)
        for name in sorted(self.names & sys.modules.keys()):
            self._imported(name)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The protocol of finders: asked for every import of a module that is not loaded yet."""
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return self._watched(spec)
        return None

    def _watched(self, spec: ModuleSpec) -> ModuleSpec:
        if spec.loader is not None and hasattr(spec.loader, "exec_module"):
            # Stands in for the protocol's abstract class, which would have to be loaded at every start of a Python.
            spec.loader = cast("None", _Telling(cast("_Loader", spec.loader), self._imported))
        return spec


class _Telling:
    """Stands where a module's loader does, until the module is executed."""

    def __init__(self, loader: _Loader, imported: Callable[[str], None]) -> None:
        self._loader = loader
        self._imported = imported

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module looks as if nobody had watched: resources are read through its loader.
        spec = module.__spec__
        if spec is not None:
            spec.loader = cast("None", self._loader)
        module.__loader__ = cast("None", self._loader)
        self._loader.exec_module(module)
        self._imported(module.__name__)
