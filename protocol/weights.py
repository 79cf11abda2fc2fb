"""Weights that a plan names: from a public seed, or a safetensors file that is known by its SHA-256.

Nothing is fetched because a plan names it: people bring the file to each place that needs it and install it there, and
what does not have the plan's hash is not opened. Differential privacy does not cover the data that such a file was
trained on, so the plan carries its licence and its provenance, and officers approve these with it.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Tensor, Vector, initial_weights
from wardround.protocol.part import Part

FOLDER: Final = "weights"
"""Where installed files lie, in a site's or a coordinator's folder, each as ``<sha256>.safetensors``."""

Hash = Field(pattern=r"^[0-9a-f]{64}$")
Tensors: TypeAlias = Mapping[str, npt.NDArray[Any]]

Installed: TypeAlias = Callable[["WeightsFile"], bytes]
"""The bytes of an installed file. Raises UsageError where it is not there."""


class PublicSeed(Part):
    """Drawn from a public seed: anyone can recompute them (``protocol.parameters.initial_weights``)."""

    source: Literal["seed"] = "seed"
    seed: int = Field(default=0, ge=0, lt=2**53)


class WeightsFile(Part):
    """A safetensors file, and what people must know of it before they let it in."""

    source: Literal["file"] = "file"
    sha256: str = Hash
    licence: str = Field(min_length=2, max_length=200, description="SPDX name, or in words")
    provenance: str = Field(min_length=10, max_length=1000, description="who trained it, on which data, for what")


def nothing_installed(file: WeightsFile) -> bytes:
    """An ``Installed`` for places that have no files."""
    raise not_installed(file)


def not_installed(file: WeightsFile) -> UsageError:
    return UsageError(
        f"the weights file {file.sha256[:12]} of this plan is not installed here",
        "bring it by hand and install it: docs/weights.md",
    )


def read_tensors(data: bytes, file: WeightsFile) -> Tensors:
    """The tensors in ``data`` by name. Raises UsageError unless it is the file that the plan names, and sound."""
    if sha256(data).hexdigest() != file.sha256:
        raise UsageError(
            f"the installed weights file {file.sha256[:12]} has been changed: its SHA-256 is another one",
            "install the file again",
        )
    return tensors_in(data)


def tensors_in(data: bytes) -> Tensors:
    """The tensors in the bytes of a safetensors file. Raises UsageError for what is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise UsageError("this is no safetensors file that can be read", "convert it to safetensors, float32") from None


def pick(tensors: Tensors, wanted: tuple[Tensor, ...]) -> Vector:
    """The ``wanted`` tensors as one float32 vector, in their order; others in the file are not looked at.

    Raises:
        UsageError: one is missing, has another shape, or holds a number that is not finite.
    """
    layout = Layout(wanted)
    for tensor in wanted:
        found = tensors.get(tensor.name)
        if found is None:
            raise UsageError(f"the weights file has no tensor '{tensor.name}'", "it belongs to another network")
        if found.shape != tensor.shape or not np.issubdtype(found.dtype, np.floating):
            raise UsageError(
                f"tensor '{tensor.name}' of the weights file is {found.dtype} of shape {found.shape}, "
                f"and the network's is a float of shape {tensor.shape}",
                "it belongs to another network, or to pictures of another kind",
            )
        if not np.isfinite(found).all():
            raise UsageError(f"tensor '{tensor.name}' of the weights file is not finite", "get the file again")
    return layout.join({tensor.name: tensors[tensor.name] for tensor in wanted})


def weights_of(source: "PublicSeed | WeightsFile", wanted: tuple[Tensor, ...], installed: Installed) -> Vector:
    """The ``wanted`` tensors as one float32 vector, from the seed or from the installed file. Raises UsageError."""
    if isinstance(source, PublicSeed):
        return initial_weights(Layout(wanted), "uniform", source.seed)
    return pick(read_tensors(installed(source), source), wanted)
