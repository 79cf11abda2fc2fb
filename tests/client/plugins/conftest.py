"""Plugins as researchers write them, good and bad."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from wardround.client.plugins.engine import IsolatedEngine
from wardround.privacy.gradients import Examples
from wardround.protocol.plugins import Manifest, Plugin, PluginRef, PluginTask, TensorSpec

FEATURES = 3

PLAIN = """
from torch import nn

def build(features):
    return nn.Linear(features, 1)
"""


def plugin_of(source: str, kind: Any = "model", name: str = "tried") -> Plugin:
    manifest = Manifest(name=name, version="1.0", kind=kind, summary="for a test")
    return Plugin(manifest=manifest, files={f"{name}/__init__.py": source})


def spec_of(plugin: Plugin) -> PluginTask:
    manifest = plugin.manifest
    return PluginTask(
        plugin=PluginRef(name=manifest.name, version=manifest.version, digest=plugin.digest),
        tensors=(
            TensorSpec(name="weight", shape=(1, FEATURES), fan_in=FEATURES),
            TensorSpec(name="bias", shape=(1,), fan_in=1),
        ),
    )


def patients(values: list[float], records: int = 1) -> Examples:
    """Patients whose every feature is one value; the outcome is 1."""
    features = np.repeat(np.array(values), records)[:, None] * np.ones(FEATURES)
    count = len(values)
    return Examples(features, np.ones((count * records, 1)), np.repeat(np.arange(count), records), count)


@pytest.fixture
def isolated() -> Iterator[Callable[..., IsolatedEngine]]:
    made: list[IsolatedEngine] = []

    def make(source: str, kind: str = "model", slots: int | None = None) -> IsolatedEngine:
        plugin = plugin_of(source, kind)
        made.append(IsolatedEngine(plugin, spec_of(plugin), FEATURES, slots))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
