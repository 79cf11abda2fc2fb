"""A logistic regression of heart disease at four hospitals, over and over: what rounds and epsilon do to odds ratios.

Beside it the same regression without noise, which is that of all rows in one place. LOCAL and DIST at epsilon 1 and 3,
three to eight rounds; sites' noise comes from a seeded generator, so the table is the same every time.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from wardround.client.answers import answers_from
from wardround.client.population import read_by
from wardround.conf.planning import make_plan
from wardround.conf.statistics import parse_statistics
from wardround.protocol.parameters import Total
from wardround.simulations.cohorts import declared_in, gather
from wardround.strategies import Adding, strategy_for
from wardround.strategies.statistics import Cell, read

QUERY = {
    "name": "disease",
    "kind": "logistic_regression",
    "outcome": "num",
    "of": [{"column": "thalach", "lower": 90, "upper": 180}],
    "flags": ["sex"],
}
FIGURE = "sex"


def figures(privacy: dict[str, Any], rounds: int, repeat: int) -> list[Cell]:
    """The log odds of ``FIGURE`` in every repetition."""
    statistics = {"queries": [QUERY], "rounds": rounds}
    configuration = parse_statistics({"like": "heart_disease", "privacy": privacy, "statistics": statistics})
    gathered = gather(configuration)
    plan = make_plan(configuration, declared_in(gathered, configuration.task), date.today())
    answers, strategy = answers_from(plan), strategy_for(plan)
    assert isinstance(strategy, Adding)
    patients = [read_by(plan.task, cohort) for cohort in gathered.taking_part]
    random, found = np.random.default_rng(7), []
    for _ in range(repeat):
        state = strategy.init(plan.starting_model()).under(plan)
        for number in range(1, rounds + 1):
            added = np.sum([answers.vector(each, random.bytes, state.model) for each in patients], axis=0)
            state = strategy.step(state.at(number), Total(strategy.added(added), len(patients)))
        found.append(next(cell for cell in read(plan, state.model) if cell.quantity == FIGURE))
    return found


def half(cell: Cell) -> float:
    return ((cell.high or 0.0) - (cell.low or 0.0)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 repetitions instead of 100")
    parser.add_argument("--json", type=Path, help="also write the rows as JSON")
    given = parser.parse_args()
    repeat = 20 if given.quick else 100
    (exact,) = figures({"mode": "none"}, 8, 1)
    print(f"without noise: {exact.value:.3f} +- {half(exact):.3f}")
    rows: list[dict[str, Any]] = []
    for mode, epsilon in (("local", 1.0), ("local", 3.0), ("dist", 1.0), ("dist", 3.0)):
        terms = {"epsilon": epsilon} if mode == "local" else {"epsilon": 8.0, "epsilon_consortium": epsilon}
        for rounds in (3, 4, 6, 8):
            cells = [cell for cell in figures({"mode": mode, **terms}, rounds, repeat) if cell.value is not None]
            case = f"{mode}, epsilon {epsilon:g}, {rounds} rounds"
            measured = [("shown", 100 * len(cells) / repeat, "%", 100.0)]
            if cells:
                away = np.array([(cell.value or 0.0) - (exact.value or 0.0) for cell in cells])
                measured.append(("interval", float(np.mean([half(cell) for cell in cells])), "log odds", half(exact)))
                measured.append(("distance", float(np.sqrt(np.mean(away**2))), "log odds", half(exact)))
            for metric, value, unit, against in measured:
                rows.append(
                    {"case": case, "metric": metric, "value": value, "unit": unit, "against": against,
                     "ratio": value / against}
                )  # fmt: skip
            print(f"{case:<28}" + "  ".join(f"{name} {value:7.3f} {unit}" for name, value, unit, _ in measured))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
