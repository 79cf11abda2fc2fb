"""The words of a sweep: Hydra's grammar for lists, and what is implied by an epsilon that varies."""

import pytest

from wardround.conf.compose import compose_configuration, composer
from wardround.conf.grid import parse_grid
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError


def axes(*words: str) -> dict[str, tuple[str, ...]]:
    return {axis.key: axis.values for axis in parse_grid(words).axes}


def test_lists_choices_ranges_and_globs_are_hydras() -> None:
    found = axes("strategy=glob(fedad*)", "local.learning_rate=choice(0.1,0.5)", "rounds=range(5,20,5)", "seed=0..2")
    assert found == {
        "strategy": ("fedadagrad", "fedadam"),
        "local.learning_rate": ("0.1", "0.5"),
        "rounds": ("5", "10", "15"),
        "initial.seed": ("0", "1", "2"),
    }


def test_every_combination_is_one_point_and_the_last_axis_turns_fastest() -> None:
    points = parse_grid(["strategy=fedavg,fedprox", "seed=0..1"]).points
    assert [point.words for point in points] == [
        (f"strategy={strategy}", f"initial.seed={seed}") for strategy in ("fedavg", "fedprox") for seed in (0, 1)
    ]


def test_a_swept_epsilon_takes_the_noise_with_it_unless_a_word_says_otherwise() -> None:
    assert parse_grid(["privacy.epsilon=1,6"]).implied == ("privacy.noise_multiplier=auto", "epsilon_cap=12")
    said = ["privacy.epsilon=1,6", "privacy.noise_multiplier=9.0", "epsilon_cap=20"]
    assert parse_grid(said).implied == ()
    assert parse_grid(["privacy.epsilon=inf", "seed=0..1"]).implied == ()


def test_an_infinite_epsilon_is_no_protection_on_the_same_schedule() -> None:
    one, none = parse_grid(["privacy.epsilon=3,inf"]).points
    protected, open_ = (parse_configuration(compose_configuration(point.words)) for point in (one, none))
    assert (open_.privacy.mode, open_.privacy.epsilon, open_.privacy.noise_multiplier) == ("none", None, None)
    assert protected.privacy.noise_multiplier == "auto"
    assert (open_.local, open_.rounds) == (protected.local, protected.rounds)


def test_composing_many_gives_what_composing_each_gives() -> None:
    points = parse_grid(["strategy=fedadam", "privacy.epsilon=1,inf"]).points
    points += parse_grid(["strategy=fedadam", "seed=0..1", "+strategy.parameters.initial_v=0.1"]).points
    with composer() as compose:
        together = [compose(point.words) for point in points]
    assert together == [compose_configuration(point.words) for point in points]
    assert len({str(configuration) for configuration in together}) == len(points)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["strategy=fedavg"], "nothing varies"),
        (["seed=0,0"], "twice"),
        (["seed=0..1", "seed=3"], "given twice"),
        (["local.learning_rate=interval(0,1)"], "interval"),
        (["rounds=glob(1*)"], "no group"),
        (["strategy=glob(nothing*)"], "no value"),
        (["study=heart_disease,synthetic", "seed=0..1"], "study"),
        (["simulation.output=x", "seed=0..1"], "simulation.output"),
        (["seed=0..999", "rounds=range(1,1001)"], "1,000,000 runs"),
        (["seed=[0"], "cannot be read"),
    ],
)
def test_what_makes_no_grid_is_refused_with_the_reason(words: list[str], what: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_grid(words)
    assert what in refused.value.message
