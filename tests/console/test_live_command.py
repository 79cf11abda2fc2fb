"""``wardround live``: the cost is said first, and every form holds the same figures and makes up none."""

import csv
import json
import re
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from wardround.conf.indicators import CampaignFile, campaign_plan
from wardround.console.cli import app
from wardround.console.plan_words import in_words
from wardround.console.reports.numbers import rough
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.protocol.secagg import colluding
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry
from wardround.strategies.series import expected

DOCS = Path(__file__).parents[2] / "docs"


def shown_file() -> dict[str, Any]:
    """The file that the page shows, with less of it."""
    text = (DOCS / "indicators.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    given: dict[str, Any] = yaml.safe_load(text)
    given["hospitals"] = dict.fromkeys(("east", "north", "south"), 2000)
    given["indicators"] |= {"ticks": 24, "alarm": {"baseline": 7}}
    given["made_up"] = {"admissions_per_day": 30, "away": [{"site": "north", "first": 9, "last": 10}]}
    return given


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a simulation printed, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "file.yaml").write_text(yaml.safe_dump(shown_file()))
    done = CliRunner().invoke(app, ["live", "simulate", str(folder / "file.yaml"), "--output", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return done.output, folder


def printed(folder: Path, *more: str) -> str:
    done = CliRunner().invoke(app, ["live", "table", str(folder / "out"), *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_file_of_the_page_asks_what_it_says() -> None:
    text = (DOCS / "indicators.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    plan = campaign_plan(CampaignFile.model_validate(yaml.safe_load(text)), date(2026, 1, 1))
    assert (plan.rounds, len(plan.participants), plan.privacy.epsilon) == (90, 5, 3.0)


def test_what_the_page_says_that_shared_noise_gains_is_what_plans_give() -> None:
    """Every row of its table, from the plan's own expected error and the accountant."""
    text = (DOCS / "indicators.md").read_text(encoding="utf-8")
    file: dict[str, Any] = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    terms = yaml.safe_load(text.split("## Shared noise", 1)[1].split("```yaml\n")[1].split("```")[0])
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text.split("## Shared noise", 1)[1].split("## Who", 1)[0], re.M)
    assert [int(sites) for sites, _ in rows] == [4, 5, 10, 20]
    for sites, said in rows:
        file["hospitals"] = {f"h{number:02d}": 20_000 for number in range(int(sites))}
        whole = campaign_plan(CampaignFile.model_validate(file), date(2026, 1, 1))
        shared = campaign_plan(CampaignFile.model_validate(file | terms), date(2026, 1, 1))
        beds = [expected(plan)[1].usual for plan in (whole, shared)]
        noise = [plan.privacy.noise_multiplier or 0.0 for plan in (whole, shared)]
        alone = rounded_up(epsilon([shared.round_event("h00")], 1e-6))
        count = f"{shared.sum_threshold}, {colluding(int(sites))}, {shared.honest_sites}"
        given = (count, *(f"{one:g}" for one in noise), *map(rough, beds), f"{beds[0] / beds[1]:.2f}", alone)
        assert said.split(" | ") == list(given)


def test_cost_and_expected_error_come_before_any_figure(ran: tuple[str, Path]) -> None:
    output, _ = ran
    words = ("ε 3.00" if "ε 3.00" in output else "ε 2.9", "at delta 1e-05", "one patient", "add or remove", "collude")
    places = [output.index(word) for word in (*words, "How exact", "Begins (UTC)")]
    assert max(places[:5]) < places[5] < places[6]
    assert "charged once" in output and "all 5 levels" in output and "its secure sum is void" in output
    assert "For display only, not charged or promised" in output


def test_json_csv_and_prometheus_hold_the_same_figures(ran: tuple[str, Path]) -> None:
    _, folder = ran
    found = json.loads(printed(folder, "--json"))
    rows = list(csv.DictReader(StringIO(printed(folder, "--csv"))))
    assert len(found["figures"]) == len(rows) == 3 * 24
    for figure, row in zip(found["figures"], rows, strict=True):
        assert row["value"] == ("" if figure["value"] is None else str(figure["value"]))
        assert figure["value"] is None or figure["low"] < figure["value"] < figure["high"]
    families = {f.name: f for f in text_string_to_metric_families(printed(folder, "--prometheus"))}
    last = {figure["indicator"]: figure["value"] for figure in found["figures"] if figure["tick"] == 24}
    samples = {sample.labels["indicator"]: sample.value for sample in families["wardround_indicator"].samples}
    assert samples == last


def test_ticks_without_a_sum_have_no_value_in_any_form(ran: tuple[str, Path]) -> None:
    _, folder = ran
    rows = list(csv.DictReader(StringIO(printed(folder, "--csv"))))
    gaps = [row for row in rows if row["tick"] in ("9", "10")]
    assert len(gaps) == 6
    assert all(row["value"] == row["low"] == "" and row["hospitals"] == "0" for row in gaps)
    assert all("too few hospitals" in row["note"] for row in gaps)


def test_the_page_needs_no_script_and_says_gaps_and_cost_in_words(ran: tuple[str, Path]) -> None:
    _, folder = ran
    page = (folder / "out" / "series.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in page and page.count("<svg") == 3
    assert "no figure" in page and "2 ticks without a figure" in page and "charged once" in page


def test_a_page_can_be_made_again_and_is_never_written_over(ran: tuple[str, Path]) -> None:
    _, folder = ran
    printed(folder, "--page", str(folder / "again.html"))
    assert (folder / "again.html").read_bytes() == (folder / "out" / "series.html").read_bytes()
    done = CliRunner().invoke(app, ["live", "table", str(folder / "out"), "--page", str(folder / "again.html")])
    assert isinstance(done.exception, UsageError)


def test_a_campaign_of_shares_is_told_with_both_promises_both_budgets_and_what_it_gains(tmp_path: Path) -> None:
    """Three hospitals: h = 2, so intervals are narrower by 1.41 at most, whichever limit binds."""
    for limit, gain, why in ((6, "1.41", False), (3, "1.00", True)):
        given = shown_file() | {"privacy": {"mode": "dist", "epsilon": limit, "epsilon_consortium": 3}}
        (tmp_path / "file.yaml").write_text(yaml.safe_dump(given))
        done = CliRunner().invoke(app, ["live", "simulate", str(tmp_path / "file.yaml")])
        assert done.exit_code == 0, done.output
        text = " ".join(done.output.split())
        assert "against everyone, whoever colludes" in text
        assert "against the coordinator, or one other hospital, by itself" in text
        assert "at least 2 shares of noise that they do not know" in text
        assert text.count("of the lifetime budget of a fresh domain (cap") == 3
        assert text.count("of the lifetime budget of a fresh domain 'consortium' (cap") == 3
        assert f"Intervals are {gain} times narrower than in mode local with ε 3 against everyone; 1.41" in text
        assert (f"ε {limit} against everyone asks for more noise than it does." in text) is why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hospital": {}}, "no setting 'hospital'"),
        ({"privacy": {"mode": "dist", "epsilon": 1}}, "needs an epsilon_consortium"),
        ({"made_up": {"away": [{"site": "mars", "first": 1, "last": 2}]}}, "takes no part"),
        ({"privacy": {"mode": "local", "epsilon": 30}}, "budget"),
    ],
)
def test_a_file_that_is_wrong_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(shown_file() | change))
    done = CliRunner().invoke(app, ["live", "simulate", str(tmp_path / "file.yaml")])
    assert isinstance(done.exception, UsageError) and message in done.exception.message


def test_one_output_has_one_form_and_a_folder_is_one_of_a_campaign(ran: tuple[str, Path], tmp_path: Path) -> None:
    for arguments in (["table", str(ran[1] / "out"), "--json", "--csv"], ["table", str(tmp_path)]):
        assert isinstance(CliRunner().invoke(app, ["live", *arguments]).exception, UsageError)


def proposed(folder: Path, **more: Any) -> Any:
    given = shown_file()
    given["indicators"] |= {"start": datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)} | more
    (folder / "file.yaml").write_text(yaml.safe_dump(given))
    hub = CoordinatorFolder.create(folder / "hub", "hub", "localhost", 8443)
    return hub, CliRunner().invoke(app, ["live", "propose", str(folder / "file.yaml"), "--coordinator", str(hub.path)])


def test_a_proposal_says_what_the_campaign_costs_and_hands_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[StudyPlan] = []
    monkeypatch.setattr("wardround.console.commands.study.hand_over", lambda folder, plan: handed.append(plan))
    _, done = proposed(tmp_path)
    text = " ".join(done.output.split())
    assert done.exit_code == 0, done.output
    assert "lifetime budget" in text and "How exact" in text and "REHEARSAL" not in text
    assert [plan.task.name for plan in handed] == ["indicators"]


def test_a_campaign_is_handed_only_to_a_coordinator_that_its_hospitals_have_joined(tmp_path: Path) -> None:
    hub, done = proposed(tmp_path)
    assert isinstance(done.exception, UsageError) and "has not joined" in done.exception.message
    assert Registry(hub.database).studies() == []


def test_a_rehearsal_is_called_one_and_a_campaign_of_the_past_is_not_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wardround.console.commands.study.hand_over", lambda folder, plan: None)
    for folder in ("played", "past"):
        (tmp_path / folder).mkdir()
    assert "A REHEARSAL: a tick takes 4 s" in proposed(tmp_path / "played", rehearsal_seconds=4)[1].output
    _, done = proposed(tmp_path / "past", start=datetime(2026, 1, 5, tzinfo=UTC))
    assert isinstance(done.exception, UsageError) and "over already" in done.exception.message


def test_the_words_of_a_plan_say_first_that_it_is_a_rehearsal(tmp_path: Path) -> None:
    given = shown_file()
    for seconds, said in ((None, False), (4.0, True)):
        given["indicators"]["rehearsal_seconds"] = seconds
        words = "\n".join(in_words(campaign_plan(CampaignFile.model_validate(given), date(2026, 1, 1))))
        assert ("THIS IS A REHEARSAL: a tick passes in 4 s" in words) is said
