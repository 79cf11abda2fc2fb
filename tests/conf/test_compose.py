"""Configurations: every choice composes into a plan, and a typo is answered with the key that was meant."""

from datetime import date
from pathlib import Path

import pytest

from wardround.conf.compose import GROUPS, compose_configuration
from wardround.conf.planning import make_plan, months_later
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.strategies import ROBUST

ROOT = Path(__file__).parents[2] / "conf"
DECLARED = {"a": 50, "b": 100, "c": 200, "d": 200}
TODAY = date(2026, 11, 23)
PIXELS = ("task=cnn", "task=densenet121", "task=probe")
"""Tasks that need a study of pictures with a class."""

CHOICES = [f"{group}={file.stem}" for group in GROUPS for file in sorted((ROOT / group).glob("[!_]*.yaml"))]
"""Not what a plugin's folder chooses: nobody writes it, and it needs the folder."""


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_composes_into_a_plan(choice: str) -> None:
    words = [choice, "privacy=none"] if choice.startswith(("task=cox", "task=piecewise")) else [choice]
    words += ["task=mlp"] if choice in ("strategy=fedper", "strategy=fedrep") else []
    words += ["secagg=off"] if choice.removeprefix("strategy=") in ROBUST else []
    words += ["study=lung_ct"] if choice in PIXELS else []
    words += ["study=brain_lesion"] if choice == "task=unet" else []
    configuration = parse_configuration(compose_configuration(words))
    if (kind := configuration.task.label_kind) in ("survival", "number"):
        with pytest.raises(UsageError, match=f"'{kind}' label"):
            make_plan(configuration, DECLARED, TODAY)
        return
    plan = make_plan(configuration, DECLARED, TODAY)
    assert StudyPlan.parse(plan.canonical) == plan


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("privcy.epsilon=3", "no setting 'privcy.epsilon'", "did you mean 'privacy.epsilon'?"),
        ("privacy.epsilonn=3", "no setting 'privacy.epsilonn'", "did you mean 'privacy.epsilon'?"),
        ("round=3", "no setting 'round'", "did you mean 'rounds'?"),
        ("study=heart", "no study 'heart'", "did you mean 'heart_disease'?"),
        ("strategy=fedadm", "no strategy 'fedadm'", "did you mean 'fedadam'?"),
        ("+foo=1", "no setting 'foo'", ""),
        ("rounds=many", "'rounds'", "docs/configuration.md"),
        ("rounds=1,2", "one value", "single value"),
        ("rounds", "cannot be read", "key=value"),
        ("study=./none.yaml", "no study file", "path"),
        ("privacy.epsilon=-1", "'privacy.epsilon'", ""),
        ("strategy=fedprox strategy.parameters.mu=high", "strategy.parameters.mu", ""),
    ],
)
def test_a_typo_says_which_key_is_meant(word: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        make_plan(parse_configuration(compose_configuration(word.split())), DECLARED, TODAY)
    assert message in error.value.message and hint in error.value.hint
    assert "\n" not in error.value.message and len(error.value.lines().splitlines()) == 2


def test_a_broken_study_file_is_two_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("study: [unclosed\n")
    with pytest.raises(UsageError) as error:
        compose_configuration([f"study={tmp_path / 'bad.yaml'}"])
    assert len(error.value.lines().splitlines()) == 2


def test_cox_under_differential_privacy_is_refused_with_the_way_out() -> None:
    label = "{kind: survival, time: days, event: died, meaning: Death, unit: d, maximum_time: 9000}"
    with pytest.raises(UsageError, match="couples patients") as error:
        words = ["task=cox", "~contract.label", f"+contract.label={label}"]
        make_plan(parse_configuration(compose_configuration(words)), DECLARED, TODAY)
    assert "survival_piecewise" in error.value.message


def test_no_configuration_names_python_to_import() -> None:
    for file in ROOT.rglob("*.yaml"):
        assert "_target_" not in file.read_text() and "import" not in file.read_text().replace("important", "")


@pytest.mark.parametrize(
    ("day", "months", "later"),
    [
        (date(2026, 11, 23), 12, date(2027, 11, 23)),
        (date(2026, 12, 31), 2, date(2027, 3, 1)),
        (date(2028, 2, 29), 12, date(2029, 3, 1)),
        (date(2026, 10, 31), 1, date(2026, 12, 1)),
    ],
)
def test_a_plan_expires_on_the_same_day_of_a_later_month(day: date, months: int, later: date) -> None:
    assert months_later(day, months) == later
