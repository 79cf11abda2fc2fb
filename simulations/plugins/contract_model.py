"""What every model and task promises, as tests over a fixture ``source``: a plugin imports them all.

The same facts as of the registry's tasks (``client.compatibility``), and that behind the wall the same gradients come
out as here.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from wardround.client.compatibility import CLIP_NORM, incompatibilities
from wardround.client.plugins.engine import IsolatedEngine
from wardround.client.plugins.task import PluginAtSite
from wardround.privacy.gradients import Examples
from wardround.protocol.errors import Unavailable
from wardround.protocol.parameters import Vector, initial_weights
from wardround.simulations.plugins.local import local_task, task_spec
from wardround.simulations.plugins.source import Source

FEATURES = 7
OF = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5])
"""The patient of each record."""


@pytest.fixture(scope="module")
def task(source: Source) -> PluginAtSite:
    """The plugin's task on ``FEATURES`` columns, with its settings' defaults."""
    return local_task(source.plugin, task_spec(source, FEATURES, {}), FEATURES)


@pytest.fixture(scope="module")
def examples(source: Source) -> Examples:
    """Six made-up patients with nine records."""
    random = np.random.Generator(np.random.PCG64(3))
    if source.plugin.manifest.label == "class":
        targets = random.integers(0, 2, (len(OF), 1)).astype(float)
    else:
        targets = random.normal(size=(len(OF), 1))
    return Examples(random.normal(size=(len(OF), FEATURES)), targets, OF, int(OF.max()) + 1)


@pytest.fixture(scope="module")
def model(task: PluginAtSite) -> Vector:
    return initial_weights(task.layout, "uniform", 2)


@pytest.fixture(scope="module")
def isolated(source: Source, task: PluginAtSite) -> Iterator[IsolatedEngine]:
    engine = IsolatedEngine(source.plugin, task.spec, FEATURES, None)
    yield engine
    engine.close()


def test_it_is_built_with_the_same_tensors_every_time(source: Source) -> None:
    first, second = (task_spec(source, FEATURES, {}) for _ in range(2))
    assert first == second and first.layout(FEATURES).size > 0


def test_it_says_one_thing_of_each_record(task: PluginAtSite, model: Vector, examples: Examples) -> None:
    outputs = task.engine.outputs(model.astype(float), examples.features)
    assert outputs.shape == (len(OF), 1) and np.isfinite(outputs).all()
    scores = task.scores(outputs, examples)
    for metric in task.metrics.values():
        assert metric(scores, np.ones((2, examples.patients))).shape == (2,)


def test_it_is_compatible_with_differential_privacy(task: PluginAtSite, model: Vector, examples: Examples) -> None:
    assert incompatibilities(task, model, examples) == []
    # And written out: one patient more or less moves the sum by at most C, whoever it is.
    whole = task.engine.gradient_sum(model.astype(float), examples, CLIP_NORM)
    for gone in range(examples.patients):
        others = examples.take(np.array([one for one in range(examples.patients) if one != gone]))
        moved = whole - task.engine.gradient_sum(model.astype(float), others, CLIP_NORM)
        assert np.linalg.norm(moved) <= CLIP_NORM * 1.001


def test_a_step_along_its_gradient_lowers_its_loss(task: PluginAtSite, model: Vector, examples: Examples) -> None:
    before, here = task.engine.mean_loss(model.astype(float), examples), model.astype(float)
    gradient = task.engine.gradient_sum(here, examples, None)
    assert np.linalg.norm(gradient) > 0
    assert task.engine.mean_loss(here - 1e-3 * gradient / np.linalg.norm(gradient), examples) < before


def test_a_hospital_gets_the_same_gradients_behind_its_wall(
    task: PluginAtSite, model: Vector, examples: Examples, isolated: IsolatedEngine
) -> None:
    try:
        isolated.pace()
    except Unavailable as error:
        pytest.skip(error.message)
    # Both clip a little below C, each by the room that its own precision needs.
    for clip_norm, near in ((None, 1e-5), (CLIP_NORM, 3e-4)):
        here = task.engine.gradient_sum(model.astype(float), examples, clip_norm)
        there = isolated.gradient_sum(model.astype(float), examples, clip_norm)
        assert np.allclose(here, there, atol=near * max(1.0, float(np.abs(here).max())))
    assert isolated.failed == 0
    here, there = (engine.outputs(model.astype(float), examples.features) for engine in (task.engine, isolated))
    assert np.allclose(here, there, atol=1e-5)
