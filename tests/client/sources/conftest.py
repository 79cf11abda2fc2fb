"""A PostgreSQL of the tests' own."""

from collections.abc import Iterator

import pytest
from _postgres import Postgres, running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as found:
        yield found
