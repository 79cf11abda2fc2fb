"""What tests of simulations share."""

import os

import numpy as np
import pytest


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's random bytes are those of a seed, so that a statistical bound holds in every run or in none."""
    monkeypatch.setattr(os, "urandom", np.random.Generator(np.random.PCG64(20261129)).bytes)
