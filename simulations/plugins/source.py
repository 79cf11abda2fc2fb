"""A plugin from where a researcher has it: the folder of its package, its wheel, or the file that its author signed.

Nothing is run or imported: names and version come from ``pyproject.toml`` or the wheel's metadata, and the label from
the constant ``LABEL`` in the package's text. All three have the same digest.
"""

import ast
import configparser
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import (
    MOST_BYTES,
    MOST_FILES,
    Manifest,
    Plugin,
    PluginRef,
    SignedPlugin,
    read_signed_plugin,
)

GROUPS: Final = {"wardround.model": "model", "wardround.task": "task", "wardround.strategy": "strategy"}
"""Groups of entry points, and what kind of plugin one of them makes."""

HINT: Final = "wardround plugin new NAME writes a package that is right; docs/plugins.md"


@dataclass(frozen=True, slots=True)
class Source:
    """A plugin, and the file in which its author signed it, if it came from there."""

    plugin: Plugin
    signed: SignedPlugin | None = None

    @property
    def ref(self) -> PluginRef:
        """How a plan names it."""
        if self.signed is not None:
            return self.signed.ref
        manifest = self.plugin.manifest
        return PluginRef(name=manifest.name, version=manifest.version, digest=self.plugin.digest)


def read_source(path: Path) -> Source:
    """The plugin at ``path``.

    Raises:
        UsageError: it is no plugin: a file is missing, is no text, or is neither Python nor allowed.
    """
    try:
        if path.is_dir():
            return Source(_folder(path))
        if path.suffix == ".whl":
            return Source(_wheel(path))
        signed = read_signed_plugin(path.read_bytes())
        return Source(signed.plugin, signed)
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}", "give a folder, a wheel or a file") from None


def _folder(path: Path) -> Plugin:
    try:
        about = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))
        project = about["project"]
        named, kind = _entry(project.get("entry-points", {}))
        package = path / named
        found = [file for file in sorted(package.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
        files = {file.relative_to(path).as_posix(): file.read_bytes() for file in found[: MOST_FILES + 1]}
        version, summary = str(project["version"]), str(project.get("description", named))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError):
        raise UsageError(f"'{path}/pyproject.toml' does not describe a plugin", HINT) from None
    return _made(named, version, kind, summary, files)


def _wheel(path: Path) -> Plugin:
    try:
        with zipfile.ZipFile(path) as wheel:
            inside = {info.filename: info for info in wheel.infolist() if not info.is_dir()}
            if sum(info.file_size for info in inside.values()) > 4 * MOST_BYTES:
                raise UsageError(f"'{path.name}' is too large for a plugin", "an officer is to read it")
            (metadata,) = [name for name in inside if name.endswith(".dist-info/METADATA")]
            header = HeaderParser().parsestr(wheel.read(metadata).decode())
            parser = configparser.ConfigParser()
            parser.read_string(wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode())
            named, kind = _entry({group: dict(parser[group]) for group in parser.sections()})
            files = {name: wheel.read(name) for name in inside if name.startswith(f"{named}/")}
    except (zipfile.BadZipFile, KeyError, ValueError, configparser.Error):
        raise UsageError(f"'{path.name}' is no wheel of a plugin", HINT) from None
    return _made(named, str(header["Version"]), kind, str(header["Summary"] or named), files)


def _entry(groups: Mapping[str, Any]) -> tuple[str, str]:
    """(name of the package, kind) of the one entry point of ours."""
    found = [(str(name), GROUPS[group]) for group, entries in groups.items() if group in GROUPS for name in entries]
    if len(found) != 1:
        raise UsageError(f"the package has {len(found)} entry points of a plugin instead of one", HINT)
    return found[0]


def _made(name: str, version: str, kind: str, summary: str, files: Mapping[str, bytes]) -> Plugin:
    others = sorted(path for path in files if not path.endswith(".py"))
    if others:
        raise UsageError(
            f"'{others[0]}' is no Python file", "a plugin is text that officers can read: no data, no native code"
        )
    try:
        texts = {path: content.decode().replace("\r\n", "\n") for path, content in files.items()}
        label = _label(texts.get(f"{name}/__init__.py", ""))
        manifest = Manifest.model_validate(
            {"name": name, "version": version, "kind": kind, "summary": summary, "label": label}
        )
        return Plugin(manifest=manifest, files=texts)
    except UnicodeDecodeError:
        raise UsageError("a file of the plugin is not in UTF-8", "save it as UTF-8") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"the plugin is not right{f' at {where!r}' if where else ''}: {text}", HINT) from None


def _label(text: str) -> str:
    """The constant LABEL of the package's text; without one: class."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return "class"
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="LABEL")], value=ast.Constant(value=str(label))):
                return label
    return "class"
