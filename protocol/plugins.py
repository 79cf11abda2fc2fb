"""A researcher's own code as data: what a plugin is, its digest, its author's signature, and how a plan names one.

A plugin is text: the Python files of one package, and a few words about it. Nothing here runs or imports any of it. The
digest covers what would run and nothing else, so the folder, the wheel and the signed file of one version have one.
"""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.protocol.canonical import LABEL_PLUGIN, LABEL_PLUGIN_SIGNATURE, digest, encode
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import Part

MOST_BYTES: Final = 1 << 20
"""Of a plugin's file: an officer is to read it."""

MOST_FILES: Final = 64

_PATH: Final = re.compile(r"[a-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*\.py")

Kind = Literal["model", "task", "strategy"]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Version = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]


class Manifest(BaseModel):
    """What a plugin says of itself.

    ``kind``: a model has a function ``build``, a task ``build`` and ``loss``, a strategy a class ``Strategy``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    version: Version
    kind: Kind
    summary: str = Field(min_length=1, max_length=300)
    label: Literal["class", "number"] = Field(default="class", description="of a model or a task")


class Plugin(BaseModel):
    """The content of a plugin: ``files`` maps a path below the package's folder's parent to its text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: Manifest
    files: dict[str, str] = Field(min_length=1, max_length=MOST_FILES)

    @model_validator(mode="after")
    def _one_package(self) -> "Plugin":
        name = self.manifest.name
        for path in self.files:
            if not _PATH.fullmatch(path) or not path.startswith(f"{name}/"):
                raise ValueError("a file is no Python file of the package")
        if f"{name}/__init__.py" not in self.files:
            raise ValueError(f"the package has no {name}/__init__.py")
        if sum(len(text.encode()) for text in self.files.values()) > MOST_BYTES:
            raise ValueError(f"the files have more than {MOST_BYTES >> 20} MiB")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over the manifest and the files in the order of their paths: 64 hex digits."""
        parts = [encode(self.manifest.model_dump(mode="json"))]
        for path in sorted(self.files):
            parts += [path.encode(), self.files[path].encode()]
        return digest(LABEL_PLUGIN, *parts)


class SignedPlugin(BaseModel):
    """A plugin with its author's Ed25519 signature: the one file that goes to a hospital."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/plugin/1"] = "wardround/plugin/1"
    plugin: Plugin
    author: SiteId
    key: Hex32
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")

    @property
    def ref(self) -> "PluginRef":
        manifest = self.plugin.manifest
        return PluginRef(
            name=manifest.name, version=manifest.version, digest=self.plugin.digest, author=self.author, key=self.key
        )

    @property
    def encoded(self) -> bytes:
        """The bytes of its file: JSON that a person can read."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class PluginRef(Part):
    """A plugin as a plan names it. ``author`` and ``key`` are "" while nobody has signed it: simulation only."""

    name: Name
    version: Version
    digest: Hex32
    author: SiteId | Literal[""] = ""
    key: Hex32 | Literal[""] = ""


class TensorSpec(Part):
    """One tensor of a model that is made by code."""

    name: str
    shape: tuple[int, ...]
    fan_in: int = Field(ge=0)


class PluginTask(Part):
    """A researcher's own model or task on a table, as a plan names it.

    What one patient adds cannot depend on another, because each patient's gradient is computed in a process that has
    seen nobody else (docs/adr/0027); so no plugin couples patients, whatever it says.
    """

    name: Literal["plugin"] = "plugin"
    plugin: PluginRef
    label_kind: Literal["class", "number"] = "class"
    settings: dict[Name, float] = Field(default_factory=dict, description="numbers that 'build' gets by name")
    tensors: tuple[TensorSpec, ...] = Field(min_length=1, max_length=4096)
    center: float = Field(default=0.0, allow_inf_nan=False, description="number: public guess, in the label's unit")
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="number: public guess, in that unit")

    @property
    def couples_patients(self) -> bool:
        return False

    @property
    def needs_random_start(self) -> bool:
        return True

    def layout(self, features: int) -> Layout:
        """The layout that the plan names; the plugin's model must have it for as many features."""
        return Layout(tuple(Tensor(t.name, t.shape, t.fan_in) for t in self.tensors))


def sign_plugin(plugin: Plugin, author: Identity) -> SignedPlugin:
    """``plugin`` with the signature of its author."""
    signature = author.sign(_message(plugin.digest, author.site))
    return SignedPlugin(plugin=plugin, author=author.site, key=author.public.key.hex(), signature=signature.hex())


def read_signed_plugin(data: bytes) -> SignedPlugin:
    """The plugin in the bytes of a signed file.

    Raises:
        UsageError: it is no such file, or the signature is not that of the key it names.
    """
    if len(data) > 2 * MOST_BYTES:
        raise UsageError("this is no signed plugin: it is too large", "an officer could not read it")
    try:
        signed = SignedPlugin.model_validate_json(data)
    except ValidationError:
        raise UsageError("this is no signed plugin", "its author makes one: wardround plugin sign") from None
    author = PublicIdentity(signed.author, bytes.fromhex(signed.key))
    if not author.verifies(bytes.fromhex(signed.signature), _message(signed.plugin.digest, signed.author)):
        raise UsageError(
            "the plugin was changed after its author signed it, or another signed it", "ask the author for the file"
        )
    return signed


def _message(content: str, author: str) -> bytes:
    return f"{LABEL_PLUGIN_SIGNATURE}\x00{author}\x00{content}".encode()
