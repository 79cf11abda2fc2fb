"""The table and the progress line in the terminal."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from wardround.console.progress import RunProgress
from wardround.console.reports.numbers import decimal
from wardround.console.table import result_table
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import SimulationResult

Sample = tuple[SimulationResult, StudyPlan]


def printed(result: SimulationResult, width: int = 100, terminal: bool = False) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=terminal, color_system="standard" if terminal else None).print(
        result_table(result)
    )
    return stream.getvalue()


@pytest.mark.parametrize("width", [100, 80])
def test_the_table_fits_and_cuts_nothing_off(protected: Sample, width: int) -> None:
    text = printed(protected[0], width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for site in protected[0].sites:
        assert site.site in text


def test_a_row_holds_patients_epsilon_and_both_models_with_intervals(protected: Sample) -> None:
    result = protected[0]
    text = printed(result)
    for site in result.sites[:2]:
        assert f"{site.train_patients:,}/{site.test_patients:,}" in text
        for model in (site.own, site.shared):
            for name in result.headline_metrics:
                found = model.metrics[name]
                assert found.value is not None and found.low is not None and found.high is not None
                assert f"{decimal(found.value)} [{decimal(found.low)}, {decimal(found.high)}]" in text


def test_the_terms_of_epsilon_stand_under_the_table(protected: Sample) -> None:
    text = " ".join(printed(protected[0]).split())
    for words in (
        "2.99",
        "δ = 0.0001",
        "any one patient",
        "add or remove one patient",
        "against everyone, whoever colludes",
    ):
        assert words in text


def test_what_is_missing_is_named_with_its_reason(protected: Sample) -> None:
    text = " ".join(printed(protected[0]).split())
    assert "not estimable" in text
    assert "ewell 1/0 - - took no part took no part" in text
    assert "cork has no own model to compare with: its training patients have one class only." in text
    assert "ewell took no part: one training patient." in text
    assert "bergen: 31 records left out: 23 chol missing, 8 age missing." in text


def test_a_site_that_missed_a_round_and_a_void_round_are_named(protected: Sample) -> None:
    result = protected[0]
    text = " ".join(printed(result, 200).split())
    for site in result.sites:
        if site.excluded_because:
            continue
        missed = [r.round_number for r in result.rounds if r.sites[site.site].outcome != "replied"]
        assert (f"{site.site} was in the sum of {site.rounds_in_sum} of {len(result.rounds)} rounds" in text) == bool(
            missed
        )
        assert all(f"round {number} " in text for number in missed)
    assert "round 7; charges stay" in text


def test_without_protection_there_is_no_epsilon(unprotected: Sample) -> None:
    text = printed(unprotected[0])
    assert "no protection: simulation only" in text
    assert "δ" not in text and "2.99" not in text


def test_a_survival_study_shows_the_c_index(survival: Sample) -> None:
    text = printed(survival[0])
    assert "C-index" in text and "AUROC" not in text


def test_a_pipe_gets_no_colour_and_a_terminal_does(protected: Sample) -> None:
    assert "\x1b" not in printed(protected[0])
    assert "\x1b[" in printed(protected[0], terminal=True)


def test_hostile_names_are_not_read_as_markup(protected: Sample) -> None:
    result = protected[0]
    site = result.sites[0].model_copy(update={"site": "[red]x[/]"})
    assert "[red]x[/]" in printed(result.model_copy(update={"sites": (site, *result.sites[1:])}), 120)


def run(sample: Sample, terminal: bool, width: int = 120) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, legacy_windows=False)
    with RunProgress(sample[1], console) as progress:
        for record in sample[0].rounds:
            progress.advance(record)
    return stream.getvalue()


def test_a_pipe_gets_a_line_every_five_rounds_after_the_terms(protected: Sample) -> None:
    first, *lines = run(protected, terminal=False, width=200).splitlines()
    assert "any one patient" in first and "add or remove one patient" in first and "whoever colludes" in first
    assert [line.split(" ")[1] for line in lines] == ["5/15", "10/15", "15/15"]
    assert lines[-1].endswith("· ε 2.99 of 3 (δ 1e-4, per patient)")


def test_the_line_shows_round_metric_and_epsilon(protected: Sample) -> None:
    progress = RunProgress(protected[1], Console(file=io.StringIO()))
    record = protected[0].rounds[3]
    assert record.metrics["accuracy"] is not None
    metric = decimal(record.metrics["accuracy"])
    assert progress.describe(record) == f"round 4/15 · accuracy {metric} · ε 1.54 of 3 (δ 1e-4, per patient)"
    assert progress.describe(protected[0].rounds[6]).startswith("round 7/15 void · accuracy ")


def test_a_round_without_a_look_keeps_the_last_metric(protected: Sample) -> None:
    progress = RunProgress(protected[1], Console(file=io.StringIO()))
    seen = progress.describe(protected[0].rounds[3]).split(" · ")[1]
    blind = protected[0].rounds[4].model_copy(update={"metrics": {}})
    assert progress.describe(blind).split(" · ")[1] == seen


def test_a_terminal_gets_a_bar(protected: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = run(protected, terminal=True)
    assert "round 15/15" in text and "\x1b[" in text


def test_without_protection_the_line_says_so(unprotected: Sample, planned: Callable[..., StudyPlan]) -> None:
    text = run(unprotected, terminal=False)
    assert "no protection" in text and "ε" not in text
