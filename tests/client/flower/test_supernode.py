"""The wrapper around Flower's SuperNode."""

import time
from importlib import import_module

import pytest

from wardround.client.flower import supernode
from wardround.client.flower.supernode import FLOWERS_WAIT, SOON, SOON_SECONDS, Impatient


def test_an_answer_is_looked_for_often_at_first_and_as_flower_does_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()
    monkeypatch.setattr(supernode.time, "monotonic", lambda: now)
    monkeypatch.setattr(supernode.time, "sleep", slept.append)
    clock = Impatient()
    clock.sleep(FLOWERS_WAIT)
    now += SOON_SECONDS
    clock.sleep(FLOWERS_WAIT)
    clock.pulled()
    clock.sleep(FLOWERS_WAIT)
    clock.sleep(3.0)
    assert slept == [SOON, FLOWERS_WAIT, SOON, 3.0]


def test_flowers_loop_still_sleeps_as_the_wrapper_thinks() -> None:
    """The wrapper replaces one module's ``time``; another version of Flower may look elsewhere for its clock."""
    module = import_module("flwr.supernode.start_client_internal")
    assert vars(module)["time"] is time
    assert callable(module._pull_and_store_message)
