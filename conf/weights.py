"""Weights files on this machine: a folder with each file under the name of its SHA-256. People put them there.

A site's and a coordinator's folder each have one, and a researcher keeps one beside the study. Nothing is fetched.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.weights import WeightsFile, not_installed, tensors_in

LARGEST: Final = 1 << 30
"""Bytes of a file: it is read whole."""


@dataclass(frozen=True, slots=True)
class Held:
    """An installed file: its SHA-256, and what is in it."""

    sha256: str
    tensors: int
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """The weights files in ``path``; a folder that is not there holds none. Called, it gives a file's bytes."""

    path: Path

    def __call__(self, file: WeightsFile) -> bytes:
        """The bytes of ``file``. Raises UsageError where it is not installed."""
        try:
            return self._place(file.sha256).read_bytes()
        except FileNotFoundError:
            raise not_installed(file) from None
        except OSError as error:
            raise Unavailable(f"an installed weights file cannot be read: {error.strerror}", "check the disk") from None

    def has(self, file: WeightsFile) -> bool:
        return self._place(file.sha256).is_file()

    def install(self, source: Path) -> Held:
        """Copy the safetensors file ``source`` into the folder; one that is there already stays.

        Raises:
            UsageError: it is not there, is too large, or is no safetensors file.
            Unavailable: the folder cannot be written.
        """
        try:
            size = source.stat().st_size
            if size > LARGEST:
                raise UsageError(f"'{source.name}' has {size:,} bytes", f"{LARGEST:,} are the most that is read whole")
            data = source.read_bytes()
        except OSError as error:
            raise UsageError(f"'{source}' cannot be read: {error.strerror}", "give the path of the file") from None
        tensors, name = tensors_in(data), sha256(data).hexdigest()
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            beside = self._place(name).with_suffix(".new")
            beside.write_bytes(data)
            with beside.open("rb") as handle:
                os.fsync(handle.fileno())
            beside.chmod(0o600)
            beside.replace(self._place(name))
        except OSError as error:
            raise Unavailable(f"'{self.path}' cannot be written: {error.strerror}", "check the disk") from None
        return Held(name, len(tensors), sum(tensor.size for tensor in tensors.values()), len(data))

    def _place(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"
