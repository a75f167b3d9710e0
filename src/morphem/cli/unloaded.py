"""Help without the libraries that compute: it needs settings alone, and they take seconds to load.

A setting lies beside the code that obeys it, so its module imports what that code needs. A process that shows help
gets a stand-in for each of these libraries: every part of it is nothing, which can be called, indexed, subclassed.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LIBRARIES = {"gemmi", "matplotlib", "mrcfile", "numba", "pandas", "psutil"}
LIBRARIES |= {"pyarrow", "safetensors", "scipy", "sklearn", "torch", "umap"}


def where_help_is_asked(words: list[str]) -> None:
    """Load no library from here on, if the words ask for help."""
    if {"--help", "-h"} & set(words):
        sys.meta_path.insert(0, _StandIns())


class _StandIns(MetaPathFinder, Loader):
    """Finds and makes the stand-ins."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None):
        return ModuleSpec(fullname, self) if fullname.partition(".")[0] in LIBRARIES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Unloaded(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


class _Nothing:
    """Any part of a library that is not loaded."""

    def __getattr__(self, name: str) -> "_Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> "_Nothing":
        return self

    def __mro_entries__(self, _: tuple) -> tuple[type, ...]:
        return ()

    __getitem__ = __or__ = __ror__ = __call__


class _Unloaded(ModuleType):
    """A library that is not loaded, or a module of it."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> _Nothing:
        return getattr(_Nothing(), name)
