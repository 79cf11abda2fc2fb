"""Coordinator and hospitals killed at any point of secure aggregation: nothing is answered twice differently.

``test_crash`` says how points are counted; ``aggregate.py`` is what runs. Every run after a crash asks for a sum over
other sites, as a coordinator would that is after the difference of two sums.
"""

import secrets
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store.folder import SiteFolder
from wardround.client.store.verify import verify_file
from wardround.protocol.canonical import LABEL_RELEASE, digest
from wardround.protocol.ledger import OpenSum, Release, SignSurvivors, Start
from wardround.protocol.outgoing import parse_step
from wardround.protocol.secagg import Consent, Opening

POINTS = 12
RUNS = 4
"""Runs after one another of which each but the last may be killed."""

pytestmark = pytest.mark.server("cc")


@pytest.fixture(scope="module")
def founded(hospital: Any) -> Path:
    """North's folder with a granted plan and a pinned roster."""
    folder = hospital.place / "founded"
    how, log = hospital.job("found", folder)
    assert how == "code 0", log.with_suffix(".error").read_text()
    return folder


def check(noted: list[dict[str, Any]], folder: Path) -> None:
    """What must be true of all that left north, after any crashes and a last run to the end."""
    assert "finished" in noted[-1], "the last run did not come to its end"
    answers: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    opened: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    left: dict[str, set[str]] = defaultdict(set)
    for line in noted:
        step = line.get("step")
        if step not in ("upload", "consent", "open", "open_whole"):
            continue
        data = bytes.fromhex(line["bytes"])
        answers[step, line["session"], line["round"], line["attempt"]].add(line["bytes"])
        if step == "upload":
            left[step].add(digest(LABEL_RELEASE, data))
            continue
        message, _ = parse_step(data, "north")
        assert isinstance(message, Consent | Opening)
        left[step].add(message.survivors)
        if isinstance(message, Opening):
            opened[line["round"]].add(tuple(site for site, _, _ in message.shares))
    assert all(len(told) == 1 for told in answers.values()), "one request was answered twice differently"
    # North's own opening may never have left: it died after the entry, and the others were enough for its next upload.
    uploaded = {line["round"] for line in noted if line.get("step") == "upload"}
    sat_out = {line["round"] for line in noted if line.get("step") == "refusal"} - uploaded
    assert uploaded | sat_out == {1, 2}, "north was not asked in a round"
    # A round has one stored reply, so one sum: a second one over other sites would tell north's by subtraction.
    assert all(len(sums) == 1 for sums in opened.values()), f"two sums were opened over the same inputs: {opened}"

    ledger = SiteFolder.open(folder).ledger()
    facts = ledger.facts()
    ledger.close()
    charged = {fact.block for fact in facts if isinstance(fact, Start)}
    charged -= {fact.block for fact in facts if isinstance(fact, Release)}
    # A crash between START and RELEASE: the round stays charged, and north says nothing in it (`Site.work`).
    assert sat_out <= {int(block.split("/")[1]) for block in charged}, "north sat a round out that no crash had ended"
    assert left["upload"] <= {fact.content for fact in facts if isinstance(fact, Release)}
    assert left["consent"] <= {fact.survivors for fact in facts if isinstance(fact, SignSurvivors)}
    for step in ("open", "open_whole"):
        assert left[step] <= {fact.survivors for fact in facts if isinstance(fact, OpenSum)}
    assert left["open_whole"] <= {fact.survivors for fact in facts if isinstance(fact, SignSurvivors)}
    assert verify_file(folder / "ledger.sqlite").entries == len(facts)


def crashed(hospital: Any, template: Path, name: str, points: list[tuple[int, str]], fault: str = "") -> Path:
    """A copy of the folder after runs that were killed at these points and a last one in peace; checked."""
    folder, logs = hospital.place / name, []
    shutil.copytree(template, folder)
    for at, mode in [*points, (0, "kill")]:
        how, log = hospital.job("aggregate", folder, at, mode, fault)
        logs.append(log)
        assert how != "stuck", (points, at)
        if how == "code 0":
            break
        error = log.with_suffix(".error")
        assert how == "killed", (points, at, how, error.read_text() if error.exists() else "")
    try:
        check(hospital.lines(*logs), folder)
    except Exception as failed:
        raise AssertionError(f"killed at {points}") from failed
    return folder


def test_all_parties_are_killed_while_they_aggregate(hospital: Any, founded: Path) -> None:
    whole = hospital.place / "aggregated"
    shutil.copytree(founded, whole)
    how, log = hospital.job("aggregate", whole)
    assert how == "code 0", log.with_suffix(".error").read_text()
    points, tried = int(log.with_suffix(".points").read_text()), Counter[str]()
    assert points > 60
    steps = Counter((line["step"], line.get("round")) for line in hospital.lines(log) if "step" in line)
    opened = (steps["consent", 1], steps["open", 1], steps["open_whole", 2], steps["consent", 2])
    assert opened == (1, 1, 1, 0), "one round lost a hospital and the other none"
    for number, (at, mode) in enumerate(hospital.chosen(points, POINTS)):
        again = [(secrets.randbelow(points) + 1, mode) for _ in range(secrets.randbelow(RUNS - 1))]
        shutil.rmtree(crashed(hospital, founded, f"aggregate-{number}", [(at, mode), *again]))
        tried[mode] += 1
    print(f"\naggregate: {sum(tried.values())} of {3 * points} points tried, 0 failures")


def test_this_check_notices_an_opening_that_leaves_before_it_is_in_the_ledger(hospital: Any, founded: Path) -> None:
    with pytest.raises(AssertionError):
        crashed(hospital, founded, "early", [], "an opening leaves before it is in the ledger")
