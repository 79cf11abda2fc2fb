"""What a paper says is what the ledger's entries say, computed here by other means: SQL, the accountant's library."""

import base64
import json
import math
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld

from wardround.console.paper.excerpt import LISTED_WHOLE
from wardround.console.paper.gather import audit_report, read_source, statement
from wardround.console.paper.model import Audit, Kind, Run
from wardround.console.paper.proofs import in_order
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Inquiry, Recover
from wardround.protocol.tree import Frontier, Head
from wardround.protocol.witness import cosign


def entries(story: Any) -> list[tuple[int, dict[str, Any]]]:
    """(number, content) straight from the file."""
    store = sqlite3.connect(story.site.folder.database)
    rows = store.execute("SELECT number, content FROM entries ORDER BY number").fetchall()
    return [(number, json.loads(content)) for number, content in rows]


def rounded_up(value: float) -> str:
    return f"{math.ceil(value * 100) / 100:.2f}"


def pld_epsilon(sigma: float, q: float, steps: int, delta: float) -> float:
    """Straight from the library, without our accountant."""
    one = pld.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=1e-4)
    return float(one.self_compose(steps).get_epsilon_for_delta(delta))


def test_the_report_counts_every_entry_of_the_period_by_kind(story: Any) -> None:
    audit = story.audit().paper.audit
    assert audit.kinds == Counter(content["fact"]["kind"] for _, content in entries(story))
    assert audit.kinds["reserve"] == 12 and audit.kinds["refuse"] == 43


def test_lines_and_ranges_are_every_entry_once(story: Any) -> None:
    audit: Audit = story.audit().paper.audit
    found: list[int] = []
    for part in in_order(audit.lines, audit.runs):
        found += range(part.first, part.last + 1) if isinstance(part, Run) else [part.number]
    assert found == [number for number, _ in entries(story)]
    assert len(found) > LISTED_WHOLE, "a short ledger has no ranges"
    assert audit.runs


def test_every_listed_entry_is_as_it_stands_in_the_file(story: Any) -> None:
    by_number = dict(entries(story))
    lines = story.audit().paper.audit.lines
    assert lines[0].number == 1 and lines[-1].number == len(by_number)
    for line in lines:
        assert (line.at, line.kind) == (by_number[line.number]["at"], by_number[line.number]["fact"]["kind"])
        if line.content is not None:
            assert json.loads(line.content) == by_number[line.number]


def test_the_checkpoint_is_of_the_entries_up_to_the_periods_last_day(story: Any, witness: Identity) -> None:
    story.site.now += timedelta(days=60)
    story.site.refuse(story.plan, 99)
    held = entries(story)[:-1]
    tree = Frontier()
    store = sqlite3.connect(story.site.folder.database)
    for (content,) in store.execute("SELECT content FROM entries ORDER BY number LIMIT ?", (len(held),)):
        tree.append(content)
    size, root = story.audit().paper.anchor.note.split("\n")[1:3]
    assert int(size) == len(held)
    assert base64.b64decode(root) == tree.head().root


def test_epsilon_of_a_study_and_of_its_domain_is_what_the_library_says_of_the_charged_rounds(story: Any) -> None:
    (budget,) = story.audit().paper.audit.budgets
    reserved = [c["fact"] for _, c in entries(story) if c["fact"]["kind"] == "reserve"]
    event = reserved[0]["event"]
    exact = pld_epsilon(event["noise_multiplier"], event["sampling_probability"], 12 * event["steps"], 1e-4)
    assert budget.spent.value == budget.spendings[0].epsilon.value == rounded_up(exact)
    assert (budget.blocks, budget.spendings[0].in_period) == (12, 12)
    assert (budget.spent.delta, budget.spent.unit, budget.spent.against) == (1e-4, "patient", "everyone")


def test_the_headroom_is_the_filters_own(story: Any) -> None:
    (budget,) = story.audit().paper.audit.budgets
    spent, allowance = story.site.ledger.used("training")
    assert (budget.used, budget.allowance) == (spent, allowance)


def test_rounds_before_the_period_count_in_all_but_not_in_the_period(story: Any) -> None:
    first_day = story.site.now.date()
    story.site.now += timedelta(days=1)
    story.site.run(story.plan, 13, 14)
    audit = story.audit(since=first_day + timedelta(days=1)).paper.audit
    (spending,) = audit.budgets[0].spendings
    assert spending.in_period == 2
    assert sum(charge.blocks for charge in spending.charges) == 14
    assert audit.period.before is not None and audit.period.before.number == audit.period.first - 1
    assert audit.kinds == {"reserve": 2, "start": 2, "release": 2}


def test_a_statement_says_both_epsilons_in_mode_dist_and_against_whom(telling: Callable[[str], Any]) -> None:
    story = telling("dist")
    about = story.statement().paper.about
    everyone, consortium = about.spendings
    share, q = story.plan.privacy.noise_multiplier, story.plan.privacy.sampling_probability
    # Of four hospitals c = 1 may collude and t = 3 are in a sum: h = 2 shares of noise are there whoever colludes.
    assert everyone.epsilon.value == rounded_up(pld_epsilon(share, q, 3, 1e-4))
    assert consortium.epsilon.value == rounded_up(pld_epsilon(share * math.sqrt(2), q, 3, 1e-4))
    assert (everyone.epsilon.against, consortium.epsilon.against) == ("everyone", "consortium")
    assert consortium.epsilon.colluding == 1


def test_a_statement_without_differential_privacy_has_no_epsilon(telling: Callable[[str], Any]) -> None:
    about = telling("masks").statement().paper.about
    assert [one.epsilon for one in about.spendings] == [None]
    assert [one.epsilon for one in about.granted] == [None]


def test_what_left_is_every_release_once_also_on_two_domains(telling: Callable[[str], Any]) -> None:
    about = telling("dist").statement().paper.about
    assert [(one.span, one.first_round, one.last_round, one.answers) for one in about.left] == [("2026-11-23", 1, 3, 3)]


def test_what_left_in_a_long_study_is_told_by_month(site: Any, approve_study: Callable[..., Any]) -> None:
    plan = approve_study(site, rounds=65)
    for number in range(1, 66):
        site.now += timedelta(days=1)
        site.run(plan, number, number)
    left = statement(site.source(), plan.digest).about.left
    assert [one.span for one in left] == ["2026-11", "2026-12", "2027-01"]
    assert sum(one.answers for one in left) == 65


def test_the_approvals_are_the_officers_entries_for_the_plan(story: Any) -> None:
    about = story.statement().paper.about
    (line,) = about.approvals
    fact = json.loads(line.content)["fact"]
    assert (fact["kind"], fact["plan"], fact["blocks"]) == ("grant", story.plan.digest, 15)
    assert [one["officer"] for one in fact["approvals"]] == ["anna"]


def test_refusals_are_counted_by_plan_and_reason(story: Any) -> None:
    refusals = story.audit().paper.audit.refusals
    assert [(one.reason, one.count) for one in refusals] == [("the site is paused", 42), ("the plan has expired", 1)]
    assert {one.study for one in refusals} == {"heart_disease"}


def test_the_best_countersignature_of_each_witness_is_taken(story: Any, witness: Identity) -> None:
    (early,) = story.audit().paper.anchor.witnesses
    assert early.witness == "south" and early.size < len(entries(story))
    before = len(entries(story))
    note = story.site.ledger.checkpoint()
    proof = story.site.ledger.tree().consistency(early.size, before)
    story.site.ledger.countersign(cosign(note, story.kept, proof, story.site.identity.public, witness), witness.public)
    (later,) = story.audit().paper.anchor.witnesses
    assert later.size == before


def test_recoveries_and_waivers_are_listed_and_charged(story: Any) -> None:
    site = story.site
    charges = site.ledger.state.missing_charges(900)
    fact = Recover(seen_size=900, seen_root="ab" * 32, charges=charges, reason="the disk was replaced")
    site.ledger.record(site.approved(fact, site.anna, site.ben))
    audit = story.audit().paper.audit
    assert [line.kind for line in audit.lines if line.kind in ("recover", "waive")] == ["recover"]
    (budget,) = audit.budgets
    # Three of the 15 approved rounds were left, and a recovery charges all that could have run.
    assert budget.blocks == 15 and budget.spendings[0].in_period == 15


@pytest.mark.parametrize("mode", ["local", "masks"])
def test_nothing_that_was_derived_from_a_patient_is_in_a_paper(telling: Callable[[str], Any], mode: str) -> None:
    """In mode masks the ledger is so short that every entry is listed by itself."""
    story = telling(mode)
    story.site.ledger.record(Inquiry(officer="ben"))
    lines = story.audit().paper.audit.lines
    assert any(line.kind == "start" for line in lines) is (mode == "masks")
    for kind in Kind:
        text = story.paper(kind).file.decode()
        assert "opted_out" not in text
        assert '\\"inquiry\\"' not in text
    assert any("opted_out_at_most" in json.dumps(content) for _, content in entries(story)), "the ledger has them"


def test_a_ledger_that_does_not_continue_the_former_report_makes_none(
    story: Any, tmp_path: Any, witness: Identity
) -> None:
    other = Identity(story.site.identity.site, story.site.identity.private)
    forked = Checkpoint("north", Head(5, bytes(32))).note().signed_by(other).encode()
    with pytest.raises(UsageError, match="does not continue the former report"):
        story.audit(forked)


def test_the_checkpoint_of_another_site_is_no_former_one(story: Any, witness: Identity) -> None:
    foreign = Checkpoint("south", Head(5, bytes(32))).note().signed_by(witness).encode()
    with pytest.raises(UsageError, match="not this site's"):
        story.audit(foreign)


def test_a_broken_ledger_makes_no_paper(story: Any) -> None:
    story.site.ledger.close()
    store = sqlite3.connect(story.site.folder.database)
    for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        store.execute(f"DROP TRIGGER {name}")
    changed = "CAST(replace(CAST(content AS TEXT), '/00001/', '/00002/') AS BLOB)"
    store.execute(f"UPDATE entries SET content = {changed} WHERE number = 6")
    store.commit()
    store.close()
    with pytest.raises(UsageError, match="broken at entry 6"):
        read_source(story.site.folder)


def test_a_name_that_two_plans_share_is_refused(story: Any, planned: Callable[..., Any]) -> None:
    story.site.propose(planned(rounds=7))
    with pytest.raises(UsageError, match="2 plans"):
        statement(story.site.source(), "heart_disease")


def test_a_period_without_entries_has_its_budgets_all_the_same(story: Any) -> None:
    audit = audit_report(story.site.source(), date(2027, 1, 1), date(2027, 3, 31)).audit
    assert audit is not None
    assert (audit.period.first, audit.lines, audit.kinds) == (0, (), {})
    assert audit.budgets[0].blocks == 12


def test_making_a_paper_changes_nothing_in_the_folder(story: Any) -> None:
    story.site.ledger.close()
    database = story.site.folder.database
    before = database.read_bytes()
    for kind in Kind:
        story.paper(kind)
    assert database.read_bytes() == before


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "opacus", "flwr", "grpc", "pyarrow", "alembic", "sqlalchemy", "pypdf"}:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)

sys.meta_path.insert(0, Absent())
from pathlib import Path
import socket
socket.socket.connect = None
from wardround.client.store.folder import SiteFolder
from wardround.console.paper.as_json import sign
from wardround.console.paper.check import Known, check
from wardround.console.paper.gather import read_source, statement
from wardround.console.paper.sheets import render
source = read_source(SiteFolder.open(Path(sys.argv[1])))
signed = sign(statement(source, "heart_disease"), source.identity)
assert all(check(render(signed, suffix), Known()).accepted for suffix in (".json", ".html", ".pdf"))
print("made and checked")
"""


def test_a_paper_is_made_and_checked_without_torch_flower_or_a_network(story: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, story.site.folder.path], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "made and checked\n", done.stderr
