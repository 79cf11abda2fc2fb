"""Continual counting: what one patient moves, which nodes make a running total, and what their noise is."""

import os
from datetime import UTC, datetime
from itertools import combinations_with_replacement, product
from math import sqrt

import numpy as np
import pytest

from wardround.privacy.accounting import epsilon
from wardround.privacy.continual import (
    closed_sums,
    event_level_noise,
    noised,
    prefix_deviation,
    sensitivity,
    worst_prefix_deviation,
)
from wardround.protocol.dyadic import Node, closing, levels, nodes, prefix
from wardround.protocol.events import PoissonGaussian, TreeGaussian
from wardround.protocol.indicators import Count, Indicators, Level, Total


def released(stream: np.ndarray) -> np.ndarray:
    """All node sums of a campaign over a stream (T,), in the order of ticks."""
    ticks = len(stream)
    return np.concatenate([closed_sums(stream[:, None], tick)[:, 0] for tick in range(1, ticks + 1)])


@pytest.mark.parametrize("ticks", [1, 2, 3, 4, 5, 7, 8, 12])
@pytest.mark.parametrize("contributions", [1, 2, 3])
def test_no_patient_of_m_contributions_moves_the_nodes_by_more_than_the_sensitivity(
    ticks: int, contributions: int
) -> None:
    """Every way to place at most m contributions of either sign, on a stream that others have made."""
    others = np.random.default_rng(0).integers(0, 9, ticks).astype(float)
    before, farthest = released(others), 0.0
    for places in combinations_with_replacement(range(ticks), contributions):
        for signs in product((-1.0, 0.0, 1.0), repeat=contributions):
            stream = others.copy()
            np.add.at(stream, list(places), signs)
            farthest = max(farthest, float(np.linalg.norm(released(stream) - before)))
    bound = sensitivity(ticks, contributions, 1.0)
    assert farthest <= bound + 1e-12
    full = max(len([1 for tick in range(1, ticks + 1) for n in closing(tick) if n.begin <= t <= n.end])
               for t in range(1, ticks + 1))  # fmt: skip
    assert farthest == pytest.approx(contributions * sqrt(full))
    assert full == levels(ticks)  # Tick 1 lies in a node of each level, so the bound is met and no smaller one holds.


def test_a_bound_in_another_unit_scales_the_sensitivity() -> None:
    assert sensitivity(90, 3, 120.0) == pytest.approx(3 * 120 * sqrt(7))


@pytest.mark.parametrize("ticks", [1, 2, 7, 8, 90, 100])
def test_nodes_lie_one_after_another_in_the_order_of_ticks(ticks: int) -> None:
    found = [node for tick in range(1, ticks + 1) for node in closing(tick)]
    assert [node.position for node in found] == list(range(nodes(ticks)))
    assert max(len(closing(tick)) for tick in range(1, ticks + 1)) == levels(ticks)
    assert all(tick % (1 << node.level) == 0 for tick in range(1, ticks + 1) for node in closing(tick))


@pytest.mark.parametrize("tick", range(1, 130))
def test_a_running_total_is_of_as_many_nodes_as_the_tick_has_binary_ones(tick: int) -> None:
    found = prefix(tick)
    covered = [t for node in found for t in range(node.begin, node.end + 1)]
    assert covered == list(range(1, tick + 1))
    assert len(found) == bin(tick).count("1")
    for node in found:
        if node.level:
            left, right = node.halves
            assert (left.begin, left.end + 1, right.end) == (node.begin, right.begin, node.end)


def test_node_sums_are_those_of_their_ticks() -> None:
    stream = np.arange(1.0, 9.0)[:, None]
    assert closed_sums(stream, 8)[:, 0].tolist() == [8, 15, 26, 36]
    assert closed_sums(stream, 7)[:, 0].tolist() == [7]


@pytest.mark.parametrize("ticks", [1, 2, 3, 5, 8, 90, 127, 128])
def test_the_worst_running_total_is_the_worst_of_all(ticks: int) -> None:
    assert worst_prefix_deviation(ticks, 2.0) == pytest.approx(
        max(prefix_deviation(tick, 2.0) for tick in range(1, ticks + 1))
    )


def test_every_node_that_closes_has_noise_of_its_own_of_the_deviation_that_is_accounted_for() -> None:
    drawn = np.array([noised(np.zeros((7, 2)), 3.0, os.urandom) for _ in range(2000)]).reshape(2000, 14)
    assert drawn.std(axis=0) == pytest.approx(np.full(14, 3.0), rel=0.1)
    between = np.corrcoef(drawn.T) - np.eye(14)
    assert abs(between).max() < 0.14, "six deviations of 0.022; noise that is shared gives 1"


def test_a_campaign_is_one_gaussian_for_the_accountant_however_many_ticks_it_has() -> None:
    tree = TreeGaussian(
        noise_multiplier=2.0, sampling_probability=1.0, steps=1, declared_patients=50, ticks=2160, contributions=4
    )
    once = PoissonGaussian(noise_multiplier=2.0, sampling_probability=1.0, steps=1, declared_patients=50)
    assert epsilon([tree], 1e-5) == epsilon([once], 1e-5)


def test_a_tree_of_samples_or_of_several_steps_is_no_tree() -> None:
    for wrong in ({"sampling_probability": 0.5}, {"steps": 2}):
        given = {"noise_multiplier": 1.0, "sampling_probability": 1.0, "steps": 1, "declared_patients": 50}
        with pytest.raises(ValueError, match="one sum"):
            TreeGaussian(**{**given, **wrong}, ticks=3, contributions=1)  # type: ignore[arg-type]


def test_one_event_moves_every_indicator_of_its_kind_and_no_other() -> None:
    """By hand: an admission is a sixth of the beds (w^2 = 4/6) and a half of the admissions (1/6); a wait a half."""
    task = Indicators(
        start=datetime(2026, 1, 5, tzinfo=UTC),
        ticks=90,
        hospitals=1,
        indicators=(
            Count(name="admissions", event="admission", contributions=2),
            Level(name="beds", enters="admission", leaves="discharge", contributions=6, share=4),
            Total(name="minutes", event="wait", upper=90, contributions=2),
        ),
    )
    admission = sqrt((4 / 6) / 36 + (1 / 6) / 4)
    assert event_level_noise(task, 3.0) == pytest.approx(3.0 / admission)
    alone = task.model_copy(update={"indicators": task.indicators[1:2]})
    assert event_level_noise(alone, 3.0) == pytest.approx(18.0)


def test_a_single_tick_has_no_halves() -> None:
    with pytest.raises(ValueError, match="no halves"):
        _ = Node(3, 0).halves
