"""What a plugin's text reaches for: imports, files, network, processes, native code, and text that becomes code.

Found in the syntax tree of every file, without running any. It is a summary for a reader and not a proof: Python can
reach anything by other words. What a plugin can do at a hospital is decided by ``isolation``, whatever is found here.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from wardround.protocol.plugins import Plugin

AVAILABLE: Final = frozenset(
    {"abc", "collections", "dataclasses", "enum", "functools", "itertools", "math", "numpy", "random", "torch"}
    | {"typing", "wardround"}
)
"""Packages that are there behind the wall; ``wardround`` for strategies, which run in simulations only."""

_PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "files": (
        "os",
        "io",
        "pathlib",
        "shutil",
        "tempfile",
        "glob",
        "fileinput",
        "mmap",
        "sqlite3",
        "zipfile",
        "tarfile",
    ),
    "network": (
        "socket",
        "ssl",
        "http",
        "urllib",
        "requests",
        "httpx",
        "aiohttp",
        "ftplib",
        "smtplib",
        "grpc",
        "asyncio",
    ),
    "processes": ("subprocess", "multiprocessing", "threading", "concurrent", "signal", "pty"),
    "native code": ("ctypes", "cffi", "cython", "numba", "triton"),
    "text that becomes code": (
        "importlib",
        "runpy",
        "pickle",
        "marshal",
        "shelve",
        "dill",
        "builtins",
        "sys",
        "inspect",
    ),
}
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "files": ("open", "fromfile", "tofile", "loadtxt", "savetxt", "memmap", "save", "load"),
    "processes": ("fork", "system", "popen", "execv", "execve", "spawn", "kill"),
    "native code": ("load_library", "cpp_extension", "load_inline"),
    "text that becomes code": (
        *("exec", "eval", "compile", "__import__", "globals", "__builtins__"),
        *("__subclasses__", "__globals__", "__code__"),
    ),
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """``what`` a line of a file reaches for, and the word for it that stands there."""

    what: str
    path: str
    line: int
    word: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """``imports``: packages that are not the plugin's own; ``missing``: those that are not there behind the wall."""

    imports: tuple[str, ...]
    missing: tuple[str, ...]
    findings: tuple[Finding, ...]
    lines: int

    def said(self) -> Iterator[str]:
        """The summary as lines."""
        yield f"{self.lines} lines; imports {', '.join(self.imports) or 'nothing'}"
        if self.missing:
            yield f"not there at a hospital: {', '.join(self.missing)}"
        for finding in self.findings:
            yield f"{finding.what}: '{finding.word}' in {finding.path}, line {finding.line}"
        if not self.findings:
            yield "no files, network, processes, native code or text that becomes code are named"
        yield "This is a summary and not a proof: the wall around the plugin does not rest on it."


def capabilities(plugin: Plugin) -> Capabilities:
    """What the plugin's text reaches for. A file that is no Python is a finding by itself."""
    imports, findings, lines = set[str](), set[Finding](), 0
    for path, text in sorted(plugin.files.items()):
        lines += len(text.splitlines())
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            findings.add(Finding("no Python", path, 1, path))
            continue
        for line, package in _imported(tree):
            imports.add(package)
            findings |= {Finding(what, path, line, package) for what, known in _PACKAGES.items() if package in known}
        for line, word in _named(tree):
            findings |= {Finding(what, path, line, word) for what, known in _NAMES.items() if word in known}
    others = imports - {plugin.manifest.name, "__future__"}
    return Capabilities(tuple(sorted(others)), tuple(sorted(others - AVAILABLE)), tuple(sorted(findings)), lines)


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.split(".")[0]


def _named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names)
