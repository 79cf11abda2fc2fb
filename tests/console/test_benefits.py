"""Verdicts in words, in the terminal's table and on the page of a result."""

import io
from typing import Any, Literal

import pytest
from rich.console import Console

from wardround.client.site_result import BenefitResult, EstimateResult, KeptResult
from wardround.console.reports.benefits import sentences, site_words, verdict_words
from wardround.console.reports.html import render_report
from wardround.console.table import result_table
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import SimulationResult

Sample = tuple[SimulationResult, StudyPlan]
Verdict = Literal["helps", "harms", "not shown", "none"]


def one(verdict: Verdict, value: float | None, half: float = 0.03, reason: str = "", **more: Any) -> BenefitResult:
    ends = {} if value is None else {"low": value - half, "high": value + half}
    by = EstimateResult(value=value, **ends)
    given: dict[str, Any] = {"model": "shared", "metric": "accuracy", "comparisons": 3} | more
    return BenefitResult(better_by=by, verdict=verdict, reason=reason, **given)


@pytest.fixture
def judged(protected: Sample) -> Sample:
    """aarau is helped, bergen harmed, cork has no own model, delft too few test patients; each has a fall-back."""
    result, plan = protected
    found = [
        [one("helps", 0.04), one("not shown", 0.01, model="personalised")],
        [one("harms", -0.05), one("not shown", -0.01, model="personalised")],
        [one("none", None, reason="one class"), one("none", None, reason="one class", model="personalised")],
        [one("none", 0.2, reason="fewer than 30 test patients"), one("none", None, model="personalised")],
    ]
    keeps: list[Literal["own", "shared", "personalised"]] = ["shared", "own", "personalised", "own"]
    sites = [
        site.model_copy(update={"benefit": tuple(of), "kept": KeptResult(model=model, held_back=20, because="chosen")})
        for site, of, model in zip(result.sites, found, keeps, strict=False)
    ]
    return result.model_copy(update={"sites": (*sites, *result.sites[len(sites) :])}), plan


def test_a_verdict_is_a_plain_sentence_with_its_interval() -> None:
    assert verdict_words(one("helps", 0.04)) == "the shared model helps you by 0.040, interval 0.010 to 0.070"
    assert verdict_words(one("harms", -0.04)) == "the shared model harms you by 0.040, interval 0.010 to 0.070"
    assert verdict_words(one("not shown", 0.01)) == (
        "no difference can be shown for the shared model: +0.010, interval \N{MINUS SIGN}0.020 to 0.040"
    )
    few = verdict_words(one("none", 0.2, reason="fewer than 30 test patients"))
    assert few.startswith("no verdict on the shared model, fewer than 30 test patients: +0.200")


def test_a_hospital_that_could_compare_nothing_is_told_why_once(judged: Sample) -> None:
    cork = judged[0].sites[2]
    assert sentences(site_words(cork)) == "No verdict: one class. Goes on with the personalised model: chosen."


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_shows_a_verdict_for_each_hospital_and_model(judged: Sample, width: int) -> None:
    stream = io.StringIO()
    Console(file=stream, width=width).print(result_table(judged[0]))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    start = next(number for number, each in enumerate(lines) if "Does it help?" in each)
    rows = [each.split() for each in lines[start + 4 : start + 11]]
    assert rows[0][:2] == ["aarau", "shared"] and rows[0][-3:] == ["▲", "helps", "shared"]
    assert rows[1][0] == "personalised" and rows[1][-2:] == ["not", "shown"]
    assert rows[2][:2] == ["bergen", "shared"] and rows[2][-3:] == ["▼", "harms", "own"]
    assert rows[4][:4] == ["cork", "any", "not", "estimable"] and rows[4][-1] == "personalised"
    assert rows[5][:2] == ["delft", "shared"] and rows[5][-3:] == ["no", "verdict", "own"]
    text = " ".join(" ".join(lines).split())
    assert "the 3 intervals hold together at 95 % (Bonferroni)" in text and "no verdict below 30 test patients" in text
    assert "delft: no verdict, fewer than 30 test patients." in text


def test_the_page_has_a_picture_and_a_sentence_for_each_hospital(judged: Sample) -> None:
    page = render_report(*judged)
    section = page.split('<section id="benefit">')[1].split("</section>")[0]
    assert section.count('class="panel"') == 3, "aarau, bergen, delft; cork has nothing to draw"
    assert "The shared model helps you by 0.040, interval 0.010 to 0.070." in section
    assert section.count('class="unjudged-dot"') == 2, "one in the legend, one for delft"
    assert "Goes on with its own model" in section


def test_without_any_comparison_the_section_is_left_out(protected: Sample) -> None:
    assert 'id="benefit"' not in render_report(*protected)
    stream = io.StringIO()
    Console(file=stream, width=100).print(result_table(protected[0]))
    assert "Does it help?" not in stream.getvalue()
