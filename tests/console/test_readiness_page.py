"""The page of a site's findings: all of them, escaped, self-contained, and what others may see beside it."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from wardround.client.readiness import Finding, Severity, check, for_consortium
from wardround.client.readiness.gathered import Column, Gathered
from wardround.client.store.members import Part
from wardround.console.reports.readiness import NOTE, answer, render_readiness
from wardround.protocol.contract import DataContract, NumberColumn
from wardround.protocol.labels import ClassLabel

MADE = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)
CONTRACT = DataContract(
    columns=(
        NumberColumn(name="age", meaning="Age", unit="a", minimum=18, maximum=110, center=50, scale=10),
        NumberColumn(name="pulse", meaning="<b>Pulse</b>", unit="/min", minimum=20, maximum=250, center=70, scale=20),
    ),
    label=ClassLabel(column="sick", meaning="Sick", positive=("1",), negative=("0",)),
    patient_id="who",
)


class Plan:
    """What the page needs of a plan."""

    study, digest, contract_or_fail = "<script>hearts", "ab" * 32, CONTRACT


class Everybody:
    def parts(self, ids: list[str]) -> list[Part | None]:
        return [Part.TEST if number % 3 == 0 else Part.TRAIN for number in range(len(ids))]


@pytest.fixture
def found() -> Gathered:
    ages = np.array([float("nan")] * 17 + [300.0] * 2 + [45.0 + number % 9 for number in range(41)])
    sick = np.array([1.0, 0.0] * 30)
    made = Gathered(CONTRACT, None, Everybody(), 60, label=sick)  # type: ignore[arg-type]
    made.patients, made.content = [f"p{number}" for number in range(60)], np.arange(60)
    age, pulse = Column(ages, missing=17), Column(np.full(60, np.nan), missing=60)
    age.faults["outside"] = 2
    made.columns, made.absent = {"age": age, "pulse": pulse, "sick": Column(sick)}, {"pulse": 60}
    return made


def render(found: Gathered, findings: list[Finding]) -> str:
    plan: Any = Plan()
    return render_readiness(found, findings, plan, "north", for_consortium(found, findings, "north", "d"), MADE)


def test_every_finding_is_on_the_page_with_its_cure(found: Gathered) -> None:
    findings = check(found)
    page = render(found, findings)
    plain = page.replace("&#39;", "'")
    assert {"outside", "absent", "prevalence", "split"} <= {each.code for each in findings}
    assert all(each.sentence in plain and each.cure in plain for each in findings)
    assert NOTE in page and answer(findings) in page and "29 November 2026" in page
    cells = re.findall(r'data-label="(Missing|Refused)" class="count">(?:<[^>]+>)?([^<]+)<', page)
    assert cells == [("Missing", "17"), ("Refused", "2"), ("Missing", "not there"), ("Refused", "not there")]


def test_the_page_shows_what_others_may_see_and_no_more_there(found: Gathered) -> None:
    findings = check(found)
    others = render(found, findings).split('id="others"')[1].split("</section>")[0]
    assert "about 60" in others and "about 30" in others and "about 15" in others and "not shown" in others
    # 60 patients, 30 positive, 19 without a usable age, a column that is not there: the exact 19 and 17 stay above.
    assert "17" not in others and "19" not in others and "pulse" in others and re.search(r"Ready</dt><dd>no", others)


def test_the_page_loads_nothing_runs_nothing_and_escapes(found: Gathered) -> None:
    page = render(found, [*check(found), Finding("unread", Severity.STOPS, "<img src=x>", "<script>alert(1)</script>")])
    assert "<script" not in page and "<img" not in page and "<b>Pulse" not in page and "&lt;img src=x&gt;" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page) and "@import" not in page and "url(" not in page
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page and 'style="' not in page


def test_the_answer_counts_what_stops_and_what_is_to_be_looked_at() -> None:
    stop, look = Finding("a", Severity.STOPS, ""), Finding("b", Severity.LOOK, "")
    assert answer([]) == "Ready." and answer([look]) == "Ready; 1 finding to be looked at."
    assert answer([look, look]) == "Ready; 2 findings to be looked at."
    assert answer([stop, look]) == "Not ready: 1 finding stops the study here; 1 to be looked at."
