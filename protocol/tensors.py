"""Named arrays in the safetensors format, in parts that follow one another, so that no large array is copied.

The format (github.com/huggingface/safetensors) is 8 bytes of length, little-endian, a header in JSON of that length,
and the arrays' bytes. The library writes it too, but copies every array twice; what reads it here is the library.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_KINDS: Final = {np.dtype("<f4"): "F32", np.dtype("<f8"): "F64"}


def tensor_parts(
    tensors: Mapping[str, npt.NDArray[Any]], about: Mapping[str, str] | None = None
) -> tuple[bytes | memoryview, ...]:
    """The file's parts. ``about`` becomes its metadata. Raises TypeError for other than float32 and float64."""
    header: dict[str, Any] = {} if about is None else {"__metadata__": dict(about)}
    arrays, start = [], 0
    for name, tensor in tensors.items():
        little = tensor.dtype.newbyteorder("<")
        if little not in _KINDS:
            raise TypeError(f"an array of type {tensor.dtype} is no part of a model")
        header[name] = {"dtype": _KINDS[little], "shape": tensor.shape, "data_offsets": [start, start + tensor.nbytes]}
        arrays.append(np.ascontiguousarray(tensor, dtype=little).reshape(-1))
        start += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little"), text, *(array.data.cast("B") for array in arrays)
