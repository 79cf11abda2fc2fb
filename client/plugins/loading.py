"""From a plugin's text to its model: the modules come from memory, so what runs is what the digest covers.

Used in two places: in a researcher's own process, and in a hospital behind ``isolation``. Never in a daemon.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import Plugin

if TYPE_CHECKING:
    import torch

Code = Mapping[str, CodeType]
"""The plugin's modules, compiled and not run, by their dotted names; a package ends in ``.__init__``."""


def compiled(plugin: Plugin) -> Code:
    """Compile the plugin's files. Runs none of them. Raises UsageError for text that is no Python."""
    found = {}
    for path, text in plugin.files.items():
        try:
            found[path.removesuffix(".py").replace("/", ".")] = compile(text, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UsageError(f"'{path}' of the plugin is no Python of this version", "run its tests first") from None
    return found


class _FromMemory(MetaPathFinder, InspectLoader):
    """Finds the modules of one plugin, and nothing else."""

    def __init__(self, code: Code) -> None:
        self._code = code

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._code or f"{name}.__init__" in self._code:
            return spec_from_loader(name, self, is_package=f"{name}.__init__" in self._code)
        return None

    def get_code(self, name: str) -> CodeType:
        return self._code.get(name) or self._code[f"{name}.__init__"]

    def get_source(self, name: str) -> None:
        return None

    def is_package(self, name: str) -> bool:
        return f"{name}.__init__" in self._code

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)


def imported(code: Code, package: str) -> ModuleType:
    """Run the package's ``__init__`` and what it imports; returns the module. It stays importable in this process.

    Another version of the package that was loaded before is forgotten. Raises UsageError for the name of a package
    that others rest on.
    """
    if package in sys.stdlib_module_names or package in ("torch", "numpy", "wardround", "safetensors"):
        raise UsageError(f"a plugin cannot be named '{package}'", "choose a name of its own")
    sys.meta_path[:] = [f for f in sys.meta_path if not (isinstance(f, _FromMemory) and f.is_package(package))]
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]
    sys.meta_path.insert(0, _FromMemory(code))
    return import_module(package)


def built(
    module: ModuleType, kind: str, features: int, settings: Mapping[str, float]
) -> "tuple[torch.nn.Module, Callable[..., torch.Tensor] | None]":
    """The plugin's model for so many features, and its loss (a task's; None: the label's own)."""
    made: Any = module.build(features, **settings)
    return made, module.loss if kind == "task" else None
