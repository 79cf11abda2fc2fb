"""From the folder of a trained model to the query that evaluates it: nobody writes columns or a baseline by hand."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluations import SurvivalEvaluation
from wardround.protocol.statistics import Statistics

DECLARED, TODAY = {"east": 200, "north": 200, "south": 200}, date(2026, 11, 29)
LABEL = "{kind: survival, time: days, event: died, meaning: Death, unit: d, maximum_time: 9000}"


def trained(path: Path, task: str) -> dict[str, Any]:
    """The sections of a study whose model, all ones, lies in ``path``."""
    words = [f"task={task}", "privacy=none", "~contract.label", f"+contract.label={LABEL}"]
    composed = compose_configuration(words)
    plan = make_plan(parse_configuration(composed), DECLARED, TODAY)
    (path / "plan.json").write_bytes(plan.canonical)
    save_file({t.name: np.ones(t.shape, np.float32) for t in plan.layout.tensors}, path / "model.safetensors")
    return {key: composed[key] for key in ("study", "data", "contract")}


def asked(sections: dict[str, Any], **query: Any) -> Any:
    queries = [{"name": "model", "kind": "survival_evaluation", **query}]
    statistics = {"patients": "test", "queries": queries}
    given = sections | {"privacy": {"mode": "local", "epsilon": 3.0}, "statistics": statistics}
    return make_plan(parse_statistics(given), DECLARED, TODAY)


def test_a_piecewise_model_brings_its_columns_and_its_baseline(tmp_path: Path) -> None:
    plan = asked(trained(tmp_path, "piecewise"), model=str(tmp_path), times=[365, 1095])
    (query,) = plan.task.queries
    assert isinstance(query, SurvivalEvaluation)
    assert (query.time, query.outcome, query.times) == ("days", "died", (365, 1095))
    assert query.baseline == pytest.approx([np.exp(-365e-4 * np.e), np.exp(-1095e-4 * np.e)], rel=1e-8)
    assert plan.weights_files == (query.model.file,)


def test_a_cox_model_has_no_baseline_unless_somebody_says_one(tmp_path: Path) -> None:
    sections = trained(tmp_path, "cox")
    assert asked(sections, model=str(tmp_path), times=[365]).task.queries[0].baseline == ()
    said = asked(sections, model=str(tmp_path), times=[365], baseline=[0.9])
    assert said.task.queries[0].baseline == (0.9,)


@pytest.mark.parametrize(
    ("query", "message"),
    [({}, "times"), ({"times": ["soon"]}, "times"), ({"kind": "evaluation"}, "a yes or no")],
)
def test_what_is_wrong_in_a_query_of_survival_is_said_in_two_lines(
    tmp_path: Path, query: dict[str, Any], message: str
) -> None:
    sections = trained(tmp_path, "piecewise")
    with pytest.raises(UsageError, match=message) as error:
        asked(sections, model=str(tmp_path), **query)
    assert len(error.value.lines().splitlines()) == 2


@pytest.mark.parametrize("task", ["cox", "piecewise"])
def test_a_model_of_survival_is_asked_while_it_is_trained_and_says_no_baseline(task: str) -> None:
    words = [f"task={task}", "privacy=none", "~contract.label", f"+contract.label={LABEL}"]
    words += ["rounds=3", "evaluation.rounds=[3]", "+evaluation.ask.times=[365,1095]"]
    plan = make_plan(parse_configuration(compose_configuration(words)), DECLARED, TODAY).evaluation_plan
    assert plan is not None and isinstance(plan.task, Statistics)
    (query,) = plan.task.queries
    assert isinstance(query, SurvivalEvaluation)
    assert (query.time, query.outcome, query.times, query.baseline) == ("days", "died", (365, 1095), ())
    with pytest.raises(ValueError, match="no baseline that a plan could name"):
        SurvivalEvaluation.model_validate(query.model_dump() | {"baseline": (0.9, 0.8)})
