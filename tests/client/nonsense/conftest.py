"""What nonsense may do to a reader: give a result, or an error in two lines that shows nothing of what was read."""

import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from wardround.protocol.errors import WardroundError

SOAK = bool(os.environ.get("WARDROUND_SOAK"))
MARKER = "Quillfeather"
"""Stands in cells; no error may show it."""

SECONDS = 20.0
MEBIBYTES = 1024
"""Limits of one example, the first of the processor's time; the readers' own blocks and libraries are far below."""

settings.register_profile(
    "nonsense", max_examples=2_000 if SOAK else 60, deadline=None, derandomize=not SOAK,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@contextmanager
def limited() -> Iterator[None]:
    before, began = _peak(), time.process_time()
    yield
    assert time.process_time() - began < SECONDS, "it takes too long"
    assert _peak() - before < MEBIBYTES, "it takes too much memory"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.fixture(scope="session")
def lawful() -> Callable[..., Any]:
    """Calls a reader. Returns what it returns, or None after an error that is as errors must be."""

    def called(read: Callable[[], Any], *secrets: str) -> Any:
        with limited():
            try:
                return read()
            except WardroundError as error:
                said = error.lines()
        first, hint = said.split("\n")
        assert first.startswith("wardround: error: ") and len(first) > 25 and hint.startswith("wardround: hint: ")
        assert len(said) < 2_000
        for secret in (MARKER, *secrets):
            assert secret not in said, said
        return None

    return called


@pytest.fixture(autouse=True)
def _swept() -> Iterator[None]:
    yield
    gc.collect()
