"""What an officer reads and signs: ``site study`` and ``site domain`` against a real office behind a real socket."""

import io
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from wardround.client.control.client import control
from wardround.client.control.server import ControlServer
from wardround.client.daemon import DaemonStatus
from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for, grant_for, open_domain
from wardround.client.office import Office
from wardround.client.settings import Roles
from wardround.client.signing import request_for
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import read_officer_key, write_officer_key
from wardround.client.store.studies import Studies
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.commands.officer_sign import sign_command
from wardround.console.commands.site_control import (
    pause_command,
    resume_command,
    status_command,
    stop_command,
)
from wardround.console.commands.site_notify import notify_command
from wardround.console.commands.site_study import (
    approve_command,
    domain_open_command,
    list_command,
    record_command,
    refuse_command,
    request_command,
    revoke_command,
    show_command,
)
from wardround.console.notices.looking import Looker
from wardround.console.notices.watching import notices
from wardround.console.plan_changes import differences
from wardround.console.plan_words import in_words, plain
from wardround.privacy.budget import Allowed, may_spend
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Close, Reserve, approve
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan

PASSPHRASE = "correct horse battery"
THREE = ("east", "north", "south")
PLAN = ("rounds=15", "privacy.noise_multiplier=2.84")
DIST = ("privacy=dist", "rounds=3", "privacy.noise_multiplier=2.5")


def plan_of(*overrides: str, sites: tuple[str, ...] = THREE, **changes: Any) -> StudyPlan:
    return StudyPlan.model_validate(_planned(overrides or PLAN, sites).model_dump() | changes)


@cache
def _planned(overrides: tuple[str, ...], sites: tuple[str, ...]) -> StudyPlan:
    declared = "+data.declared={" + ",".join(f"{site}:200" for site in sites) + "}"
    given = compose_configuration(["study=heart_disease", "data.dataset=null", declared, *overrides])
    return make_plan(parse_configuration(given), dict.fromkeys(sites, 200), datetime.now(UTC).date())


class Daemon:
    """What the office asks of a daemon. ``stop`` takes the socket away a moment later, as a daemon that ends does."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ended: Callable[[], None] = lambda: None

    def status(self) -> DaemonStatus:
        return DaemonStatus(
            "north", "running", "up", "train.sum", "noon", "ab" * 32, 7, 2, "1.0", "cd" * 32, 4, 0.0, ""
        )

    def pause(self, reason: str) -> None:
        self.said.append(f"pause {reason}")

    def resume(self) -> None:
        self.said.append("resume")

    def stop(self) -> None:
        self.said.append("stop")
        threading.Timer(0.5, self.ended).start()

    def interrupt(self, plan: str) -> None:
        self.said.append(f"interrupt {plan}")

    def let(self, plan: str) -> None:
        self.said.append(f"let {plan}")

    def report(self, plan: StudyPlan, store: Any) -> str:
        return "{}"


class Site:
    """A site's folder with two officers' key files beside it, and its control socket; ``path`` must be short."""

    def __init__(self, path: Path, socket: Path | None = None) -> None:
        officers = [Identity.generate(name) for name in ("anna", "ben", "mallory")]
        self.anna, self.ben, self.mallory = (path / f"{officer.site}.key" for officer in officers)
        for officer, file in zip(officers, (self.anna, self.ben, self.mallory), strict=True):
            write_officer_key(file, officer, PASSPHRASE)
        self.made = SiteFolder.create(path / "north", "north", [officer.public for officer in officers[:2]])
        self.folder = self.made.path
        self.daemon = Daemon()
        self.office = Office(self.made, self.daemon)
        self.socket = socket or self.folder / "control.sock"
        self.server = ControlServer(self.socket, self.office, Roles(), self.folder / "sockets")
        self.daemon.ended = lambda: self.socket.unlink()
        self.server.start()

    def propose(self, plan: StudyPlan) -> StudyPlan:
        store = open_store(self.made.database)
        Studies(store).add(plan.canonical)
        store.close()
        return plan

    def open(self, *domains: str) -> None:
        for domain in domains:
            said(domain_open_command, self.folder, domain, 8.0, 200, [self.anna], True)

    def approve(self, wanted: str, *keys: Path, attempts: int = 1, reason: str | None = None, yes: bool = True) -> str:
        return said(approve_command, self.folder, wanted, keys or [self.anna], "training", attempts, reason, yes)

    def standing(self, plan: StudyPlan) -> Standing:
        return self.office.study(plan.digest).standing


def said(command: Callable[..., None], *arguments: Any) -> str:
    """What a command prints."""
    with redirect_stdout(io.StringIO()) as output:
        command(*arguments)
    return output.getvalue()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix socket has 107 bytes at most."""
    path = Path(f"/tmp/wr-s-{os.getpid()}-{threading.get_native_id()}")
    path.mkdir(mode=0o700)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def site(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("WARDROUND_PASSPHRASE", PASSPHRASE)
    made = Site(short)
    yield made
    made.server.stop()
    made.office.close()


def answering(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))


def test_approve_shows_the_plan_and_its_cost_asks_and_signs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 rounds of 5 steps at noise 2.84, q = 0.25 are epsilon 2.99 at delta 1e-4: README and docs/epsilon.md."""
    plan = site.propose(plan_of())
    site.open("training")
    answering(monkeypatch, "n")
    with pytest.raises(typer.Exit):
        site.approve(plan.study, yes=False)
    assert site.standing(plan) is Standing.PROPOSED, "a no signs nothing"
    answering(monkeypatch, "y")
    shown = site.approve(plan.study, yes=False)
    assert site.standing(plan) is Standing.APPROVED
    assert "epsilon 2.99 at delta 0.0001; unit: " in shown and "adjacency: " in shown and "whoever colludes" in shown
    for term in (plan.digest, plan.behaviour, plan.code_version, plan.governance.purpose, "mmHg", "Approved by anna"):
        assert term in shown, term
    assert "NO SECURE AGGREGATION" not in shown and "never one hospital's update" in shown


def test_what_is_left_of_a_domain_is_shown_before_anybody_signs(site: Site) -> None:
    """The count is what the ledger would admit, one round after another."""
    plan = site.propose(plan_of())
    site.open("training")
    shown = site.approve(plan.study)
    found = re.search(r"'training': 0 % of its budget is spent; (\d+) more rounds of this plan would fit", shown)
    assert found is not None, shown
    budget, event = site.office.study(plan.digest).budgets[0], charge_for(plan, "north", "training")
    spent = admitted = 0
    while isinstance(once := may_spend(spent, event, budget.allowance, budget.order), Allowed):
        spent, admitted = once.spent, admitted + 1
    assert admitted == int(found[1]) > plan.rounds


def test_a_second_attempt_at_each_round_costs_more_and_the_screen_says_how_much(site: Site) -> None:
    plan = site.propose(plan_of())
    site.open("training")
    shown = site.approve(plan.study, attempts=2)
    cost = float(re.search(r"30 rounds on 'training': epsilon ([0-9.]+)", shown)[1])  # type: ignore[index]
    assert 2.99 < cost < 2 * 2.99, "composition is better than a sum"
    assert site.office.study(plan.digest).grants[0].blocks == 30
    for attempts in (0, -1):
        with pytest.raises(UsageError, match="at least once"):
            site.approve(plan.study, attempts=attempts)
    assert site.standing(plan) is Standing.APPROVED, "a grant of no rounds would have been a revocation"


def test_a_plan_in_mode_dist_needs_both_domains_and_both_costs_are_shown(site: Site) -> None:
    plan = site.propose(plan_of(*DIST))
    site.open("training")
    with pytest.raises(UsageError, match="consortium"):
        site.approve(plan.study)
    site.open(CONSORTIUM_DOMAIN)
    shown = site.approve(plan.study)
    costs = dict(re.findall(r"rounds on '(\w+)': epsilon ([0-9.]+)", shown))
    assert set(costs) == {"training", CONSORTIUM_DOMAIN}
    assert float(costs[CONSORTIUM_DOMAIN]) < float(costs["training"]), "more noise is in what the consortium sees"
    assert "as colluding" in shown
    assert {line.domain for line in site.office.study(plan.digest).grants} == set(costs)


def test_a_plan_without_differential_privacy_needs_two_officers_and_a_reason(site: Site) -> None:
    (site.folder / "policy.yaml").write_text("allow_mask_only: true\nallow_unprotected: true\n")
    plan = site.propose(plan_of("privacy=none", "rounds=2"))
    site.open("training")
    why = "the table has been public since 1988"
    assert "THERE IS NO" in said(show_command, site.folder, plan.study, False)
    for keys, reason in (((site.anna,), why), ((site.anna, site.ben), None), ((site.anna, site.ben), " short  ")):
        with pytest.raises(UsageError, match="two officers"):
            site.approve(plan.study, *keys, reason=reason)
    with pytest.raises(UsageError, match="2 officers"):
        site.approve(plan.study, site.anna, site.anna, reason=why)
    assert site.standing(plan) is Standing.PROPOSED and site.office.study(plan.digest).waived == ()
    site.approve(plan.study, site.anna, site.ben, reason=why)
    assert site.standing(plan) is Standing.APPROVED
    site.approve(plan.study, site.anna, site.ben, reason=why)
    assert site.office.study(plan.digest).grants[0].version == 2, "the waiver stands once, the grant is renewed"


def test_a_plan_that_costs_more_than_it_says_can_neither_be_approved_nor_requested(site: Site, short: Path) -> None:
    """20 rounds of 5 steps at noise 2.84, q = 0.25 cost 3.52 at delta 1e-4; the plan says 3."""
    plan = site.propose(plan_of("rounds=20", PLAN[1]))
    site.open("training")
    says = (
        "the plan says epsilon 3 and costs 3.52, both at delta 0.0001; unit: one patient of one site; adjacency: add "
    )
    for ask in (
        lambda: site.approve(plan.study),
        lambda: request_command(site.folder, plan.study, "training", 1, None, False, short / "request.json"),
    ):
        with pytest.raises(UsageError, match=f"cannot run here: {says}") as refused:
            ask()
        assert "another plan of the researcher" in refused.value.hint
    assert site.standing(plan) is Standing.PROPOSED and not (short / "request.json").exists()
    assert f"Not allowed here: {says}" in said(show_command, site.folder, plan.study, False)
    (site.folder / "policy.yaml").write_text("epsilon_at_most: 100\nallow_unprotected: true\n")
    assert "costs 3.52" in site.office.study(plan.digest).fault, "no policy lets it run"
    honest = site.propose(plan_of("rounds=20", PLAN[1], "privacy.epsilon=3.52"))
    site.approve(honest.digest)
    assert site.standing(honest) is Standing.APPROVED


def test_a_closed_domain_does_not_keep_a_plan_from_being_revoked(site: Site) -> None:
    plan = site.propose(plan_of(*DIST))
    site.open("training", CONSORTIUM_DOMAIN)
    site.approve(plan.study)
    anna = read_officer_key(site.anna, PASSPHRASE)
    for domain, left in ((CONSORTIUM_DOMAIN, ["training"]), ("training", [])):
        closing = approve(Close(domain=domain, reason="the ward was closed"), site.office.ledger_key, anna)
        site.office.record([closing.model_dump_json().encode()])
        if left:
            said(revoke_command, site.folder, plan.study, [site.anna])
            grants = site.office.study(plan.digest).grants
            assert [grant.domain for grant in grants if grant.blocks == 0] == left
            assert site.standing(plan) is Standing.REVOKED
            with pytest.raises(UsageError, match="has no budget, or is closed"):
                site.approve(plan.study)
    with pytest.raises(UsageError, match="this plan is over: every data domain") as over:
        said(revoke_command, site.folder, plan.study, [site.anna])
    assert "pausing" in over.value.hint


def test_only_an_officers_key_and_passphrase_approve(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = site.propose(plan_of())
    site.open("training")
    with pytest.raises(UsageError, match="no officer"):
        site.approve(plan.study, site.mallory)
    monkeypatch.setenv("WARDROUND_PASSPHRASE", "another passphrase")
    with pytest.raises(UsageError, match="cannot be opened"):
        site.approve(plan.study)
    assert site.standing(plan) is Standing.PROPOSED


def test_a_plan_beyond_the_policy_or_without_a_budget_is_not_signed(site: Site) -> None:
    plan = site.propose(plan_of())
    with pytest.raises(UsageError, match="has no budget"):
        site.approve(plan.study)
    site.open("training")
    (site.folder / "policy.yaml").write_text("rounds_at_most: 14\n")
    with pytest.raises(UsageError, match="15 rounds"):
        site.approve(plan.study)
    assert "Not allowed here" in said(list_command, site.folder)
    (site.folder / "policy.yaml").write_text("rounds_at_most: 15\n")
    assert "Approved" in site.approve(plan.study)


def test_revoke_and_refuse_name_the_plan_that_they_ended(site: Site) -> None:
    plan, other = site.propose(plan_of()), site.propose(plan_of(study="kidneys"))
    site.open("training")
    with pytest.raises(UsageError, match="never approved"):
        said(revoke_command, site.folder, plan.study, [site.anna])
    site.approve(plan.study)
    assert plan.digest in said(revoke_command, site.folder, plan.digest[:8], [site.ben])
    assert site.standing(plan) is Standing.REVOKED
    assert other.digest in said(refuse_command, site.folder, "kidneys", "the board has not decided")
    assert "Refused because: the board has not decided" in said(show_command, site.folder, "kidneys", False)
    listed = said(list_command, site.folder)
    assert "revoked" in listed and "refused" in listed
    assert site.daemon.said[-2:] == [f"interrupt {plan.digest}", f"interrupt {other.digest}"]


def test_a_name_of_two_plans_is_not_enough_to_sign_unseen(site: Site) -> None:
    first = site.propose(plan_of())
    second = site.propose(plan_of("rounds=14", PLAN[1]))
    site.open("training")
    for blind in (
        lambda: site.approve(first.study),
        lambda: said(revoke_command, site.folder, first.study, [site.anna]),
        lambda: said(refuse_command, site.folder, first.study, "no"),
    ):
        with pytest.raises(UsageError, match="2 plans of the study") as refused:
            blind()
        assert first.digest[:12] in refused.value.hint and second.digest[:12] in refused.value.hint
    site.approve(first.digest)
    assert (site.standing(first), site.standing(second)) == (Standing.APPROVED, Standing.PROPOSED)


def test_a_study_that_is_named_like_another_plans_digest_is_not_taken_for_it(site: Site) -> None:
    meant = site.propose(next(p for n in range(1, 200) if (p := plan_of(title=f"{n}")).digest[0].isalpha()))
    prefix = meant.digest[:8]
    assert site.propose(plan_of(study=prefix)).study == prefix
    with pytest.raises(UsageError, match="no one plan"):
        said(show_command, site.folder, prefix, False)
    assert f"Plan {meant.digest}" in said(show_command, site.folder, meant.digest, False)
    for unknown in ("nothing", meant.digest[:5], ""):
        with pytest.raises(UsageError, match="no one plan"):
            said(show_command, site.folder, unknown, False)


def test_show_says_what_changed_since_the_plan_that_was_approved_before(site: Site) -> None:
    before = site.propose(plan_of())
    columns = before.model_dump()["contract"]
    column = next(one for one in columns["columns"] if one["name"] == "chol")
    column["meaning"] = "Result of an HIV test"
    site.open("training")
    after = site.propose(plan_of("rounds=14", PLAN[1], contract=columns))
    assert "approved here before" not in said(show_command, site.folder, after.digest, False)
    site.approve(before.digest)
    shown = said(show_command, site.folder, after.digest, False)
    assert f"Against plan {before.digest[:12]}" in shown
    assert "  rounds: 14, before 15" in shown.splitlines()
    assert "contract.columns.chol.meaning: Result of an HIV test, before " in shown
    assert json.loads(said(show_command, site.folder, after.digest, True))["rounds"] == 14


def test_a_difference_is_told_in_full_and_by_name() -> None:
    plan = plan_of()
    content = plan.model_dump()
    assert list(differences(plan, plan)) == []
    long = "Predict a narrowed artery. " * 10
    purpose = [content["governance"] | {"purpose": long + end} for end in ("For care.", "For sale.")]
    (line,) = differences(plan_of(governance=purpose[0]), plan_of(governance=purpose[1]))
    assert line.endswith("For care.") and "For sale., before" in line
    contract = content["contract"] | {"columns": content["contract"]["columns"][1:]}
    gone = content["contract"]["columns"][0]["name"]
    lines = list(differences(plan_of(contract=contract), plan))
    assert lines and all(one.startswith(f"contract.columns.{gone}.") and "before nothing" in one for one in lines)
    turned = content["contract"] | {"columns": content["contract"]["columns"][::-1]}
    (line,) = differences(plan, plan_of(contract=turned))
    assert line.startswith("contract.columns in the order: ")
    fewer = plan_of("min_sites=2", *PLAN, sites=("east", "north"))
    assert any(one.startswith("participants.south.declared_patients: nothing") for one in differences(plan, fewer))


def test_the_texts_of_a_plan_cannot_write_on_the_officers_screen(site: Site) -> None:
    """A clear screen, a line of its own, letters from right to left, a gap that pushes the rest out of sight."""
    evil = "ok\x1b[2J\x1b[H\nEpsilon of the whole study: at most 0.1\u202e\x9b31m" + " " * 300 + "."
    plan = site.propose(plan_of(title=evil))
    before = site.propose(plan_of())
    shown = said(show_command, site.folder, plan.digest, False) + said(list_command, site.folder)
    shown += "\n".join(differences(before, plan))
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert "\nEpsilon of the whole study: at most 0.1" not in shown
    assert "ok\\x1b[2J" in shown and " " * 300 not in shown
    assert any(line.startswith("Epsilon of the whole study: at most") for line in shown.splitlines()), "the true one"
    assert plain("Zürich, 5 µg/dl; 東京") == "Zürich, 5 µg/dl; 東京", "what people write stays as it is"


@pytest.mark.parametrize("sites", [("north",), ("east", "north")])
def test_pilots_and_missing_secure_sums_are_said_in_plain_words(sites: tuple[str, ...]) -> None:
    text = "\n".join(in_words(plan_of(f"min_sites={len(sites)}", *PLAN, sites=sites)))
    assert f"PILOT OF {len(sites)} HOSPITAL" in text and "there is no secure aggregation" in text
    assert "readable by the coordinator" in text and "under masks" not in text
    three = "\n".join(in_words(plan_of()))
    assert "PILOT" not in three and "under masks" in three


def test_local_privacy_of_three_hospitals_without_secure_sums_says_so() -> None:
    terms = plan_of().privacy.model_dump() | {"secure_aggregation": False}
    text = "\n".join(in_words(plan_of(privacy=terms)))
    assert "THERE IS NO SECURE AGGREGATION" in text and "PILOT" not in text


def test_a_domain_is_opened_once_by_an_officer_with_or_without_a_plan(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "n")
    with pytest.raises(typer.Exit):
        said(domain_open_command, site.folder, "training", 8.0, 200, [site.anna], False)
    # By the socket's path, as an officer does who may not read the site's folder.
    shown = said(domain_open_command, site.socket, "training", 8.0, 200, [site.anna], True)
    assert "epsilon at most 8 at delta" in shown and "for ever" in shown
    with pytest.raises(UsageError):
        said(domain_open_command, site.folder, "training", 9.0, 200, [site.anna], True)
    with pytest.raises(UsageError):
        said(domain_open_command, site.folder, "other", 8.0, 200, [site.mallory], True)
    assert set(site.made.ledger().state.domains) == {"training"}


def test_long_plans_cannot_make_the_list_too_long_to_revoke(site: Site) -> None:
    """gRPC takes 4 MiB by default: a coordinator could have filled that with proposals after an approval."""
    plan = site.propose(plan_of())
    site.open("training")
    site.approve(plan.digest)
    for number in range(6):
        site.propose(plan_of(study=f"flood{number}", title="x" * 1_000_000))
    assert plan.digest in said(revoke_command, site.folder, plan.digest[:12], [site.anna])
    assert site.standing(plan) is Standing.REVOKED


def test_status_pause_resume_and_stop_reach_the_daemon(site: Site) -> None:
    shown = said(status_command, site.folder, False)
    assert "Site 'north': running, link up." in shown and "round 7" in shown and "refused since it started: 2" in shown
    assert json.loads(said(status_command, site.folder, True))["ledger_key"] == site.office.ledger_key
    said(pause_command, site.folder, "backup")
    said(resume_command, site.folder)
    with pytest.raises(UsageError, match="reason"):
        said(pause_command, site.folder, " ")
    assert "Stopped" in said(stop_command, site.folder)
    assert not site.socket.exists(), "stop waits until the daemon has ended"
    assert site.daemon.said == ["pause backup", "resume", "stop"]
    with pytest.raises(Unavailable, match="no daemon runs") as none:
        said(status_command, site.folder, False)
    assert none.value.lines().count("\n") == 1


def test_a_socket_that_the_settings_put_elsewhere_is_found_and_stop_waits_for_it(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_PASSPHRASE", PASSPHRASE)
    made = Site(short, short / "elsewhere.sock")
    try:
        with pytest.raises(Unavailable):
            said(status_command, made.folder, False)
        (made.folder / "site.yaml").write_text(f"socket: {made.socket}\n")
        assert "running" in said(status_command, made.folder, False)
        assert "running" in said(status_command, made.socket, False)
        said(stop_command, made.folder)
        assert not made.socket.exists()
    finally:
        made.server.stop()
        made.office.close()


def test_a_folder_that_this_user_may_not_look_into_is_said_in_two_lines(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    child = os.fork()
    if child == 0:
        os.setuid(4001)
        try:
            with control(site.folder):
                os._exit(1)
        except Unavailable as error:
            os._exit(0 if "may not look into" in error.message and "socket" in error.hint else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def signed_elsewhere(site: Site, tmp_path: Path, plan: StudyPlan, *keys: Path, **asked: Any) -> tuple[str, Path]:
    """What the officer's own machine prints, and the file that comes back; the request is carried by hand."""
    number = len(list(tmp_path.iterdir()))
    request, back = tmp_path / f"{number}-request.json", tmp_path / f"{number}-signed.json"
    terms = {"domain": "training", "attempts": 1, "reason": None, "revoke": False} | asked
    request_command(site.folder, plan.study, *terms.values(), request)
    with redirect_stderr(io.StringIO()) as output:
        sign_command(request, keys or [site.anna], back, True)
    return output.getvalue(), back


def test_an_officer_signs_on_a_machine_of_her_own_and_revokes_there(site: Site, tmp_path: Path) -> None:
    plan = site.propose(plan_of())
    site.open("training")
    shown, back = signed_elsewhere(site, tmp_path, plan)
    assert site.standing(plan) is Standing.PROPOSED, "nothing is approved before it came back"
    for term in (plan.digest, plan.governance.purpose, "may charge 15 rounds on 'training'", "Ledger: "):
        assert term in shown, term
    assert "signed by anna" in said(record_command, site.folder, back)
    assert site.standing(plan) is Standing.APPROVED
    with pytest.raises(UsageError):
        record_command(site.folder, back)  # a version is recorded once
    shown, back = signed_elsewhere(site, tmp_path, plan, revoke=True)
    assert "may do nothing more on 'training' (version 2)" in shown
    record_command(site.folder, back)
    assert site.standing(plan) is Standing.REVOKED


def test_two_officers_sign_a_waiver_elsewhere(site: Site, tmp_path: Path) -> None:
    plan = site.propose(plan_of("privacy=none", "secagg=on"))
    site.open("training")
    (site.folder / "policy.yaml").write_text("allow_mask_only: true")
    with pytest.raises(UsageError, match="written reason"):
        signed_elsewhere(site, tmp_path, plan, reason="short")
    shown, back = signed_elsewhere(site, tmp_path, plan, site.anna, reason="a pilot on public data")
    assert "NO DIFFERENTIAL PRIVACY. Reason: a pilot on public data" in shown
    with pytest.raises(UsageError, match="still lacks a signature"):
        record_command(site.folder, back)  # one officer alone
    _, back = signed_elsewhere(site, tmp_path, plan, site.anna, site.ben, reason="a pilot on public data")
    record_command(site.folder, back)
    assert site.standing(plan) is Standing.APPROVED


def test_a_second_officer_signs_what_the_first_has_signed_and_nobody_signs_twice(site: Site, tmp_path: Path) -> None:
    plan = site.propose(plan_of("privacy=none", "secagg=on"))
    site.open("training")
    (site.folder / "policy.yaml").write_text("allow_mask_only: true")
    shown, half = signed_elsewhere(site, tmp_path, plan, site.anna, reason="a pilot on public data")
    assert "half signed. Another officer signs it" in shown
    for keys in ([site.anna], [site.ben, site.anna]):
        with pytest.raises(UsageError, match="'anna' has signed this already"):
            sign_command(half, keys, tmp_path / "never.json", True)
    changed = json.loads(half.read_text())
    changed["facts"][0]["reason"] = "a better reason"
    with pytest.raises(UsageError, match="a signature of officer 'anna' is not hers"):
        sign_command(_written(tmp_path / "changed.json", changed), [site.ben], tmp_path / "never.json", True)
    changed = json.loads(half.read_text())
    changed["facts"][1]["approvals"] = []
    with pytest.raises(UsageError, match="not all signed by the same officers"):
        sign_command(_written(tmp_path / "part.json", changed), [site.ben], tmp_path / "never.json", True)
    with redirect_stderr(io.StringIO()) as output:
        sign_command(half, [site.ben], tmp_path / "whole.json", True)
    assert re.search(r"Officer 'anna' has signed this already, with the key [0-9a-f ]{39}\.", output.getvalue())
    assert not (tmp_path / "never.json").exists()
    assert "signed by anna, ben" in said(record_command, site.folder, tmp_path / "whole.json")
    assert site.standing(plan) is Standing.APPROVED


def test_a_request_to_open_a_domain_says_its_budget_and_nothing_else_is_signed_with_it(
    site: Site, tmp_path: Path
) -> None:
    fact = open_domain("children", 4.0, 1e-4)
    request = json.loads(request_for(None, "north", site.office.ledger_key, [fact]))
    with redirect_stderr(io.StringIO()) as output:
        sign_command(_written(tmp_path / "domain.json", request), [site.anna], tmp_path / "signed.json", True)
    assert "the data domain 'children' is opened: epsilon at most 4 at delta 0.0001; unit:" in output.getvalue()
    record_command(site.folder, tmp_path / "signed.json")
    assert {line.domain for line in site.office.books().budgets} == {"children"}
    plan = plan_of()
    grant = json.loads(grant_for(plan, "north").model_dump_json())
    for more in ({"order": 3}, {"epsilon_cap": None, "order": None}, grant):
        bad = request | {"facts": [more if "kind" in more else request["facts"][0] | more]}
        with pytest.raises(UsageError, match="more than its plan"):
            sign_command(_written(tmp_path / "bad.json", bad), [site.anna], tmp_path / "never.json", True)
    with pytest.raises(UsageError, match="a data domain belongs to no plan"):
        under = request | {"plan": json.loads(plan.canonical)}
        sign_command(_written(tmp_path / "bad.json", under), [site.anna], tmp_path / "never.json", True)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda r: r["facts"][0].update(blocks=1500), "more rounds than the plan tries"),
        (lambda r: r["facts"][0]["event"].update(noise_multiplier=0.1), "what the plan does not say"),
        (lambda r: r["facts"][0].update(plan="0" * 64), "about another plan"),
        (lambda r: r["plan"]["privacy"].update(noise_multiplier=0.1), "about another plan"),
        (lambda r: r.update(site="elsewhere"), "does not name site"),
        (
            lambda r: r["facts"].append(
                {"kind": "waive", "domain": "training", "plan": r["facts"][0]["plan"], "reason": "because we say so"}
            ),
            "a waiver of a plan that has differential privacy",
        ),
        (lambda r: r["facts"].append({"kind": "officers", "version": 2, "officers": {"eve": "0" * 64}}), "no request"),
        (lambda r: r.update(more=1), "no request"),
        (lambda r: r["plan"].update(title=7), "no plan of this version"),
    ],
)
def test_a_request_that_asks_for_more_than_its_plan_is_not_signed(
    site: Site, tmp_path: Path, change: Callable[[Any], None], refused: str
) -> None:
    plan = site.propose(plan_of())
    site.open("training")
    request = json.loads(said(request_command, site.folder, plan.study, "training", 1, None, False, None))
    sign_command(_written(tmp_path / "good.json", request), [site.anna], tmp_path / "signed.json", True)
    change(request)
    with pytest.raises(UsageError, match=refused):
        sign_command(_written(tmp_path / "bad.json", request), [site.anna], tmp_path / "never.json", True)
    assert not (tmp_path / "never.json").exists()


def _written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_what_was_signed_for_another_ledger_or_by_nobody_is_not_recorded(site: Site, tmp_path: Path) -> None:
    plan = site.propose(plan_of())
    site.open("training")
    _, back = signed_elsewhere(site, tmp_path, plan)
    good = json.loads(back.read_text())
    for change, refused in (
        ({"ledger": "0" * 64}, "another site's ledger"),
        ({"site": "east"}, "another site's ledger"),
        ({"facts": [good["facts"][0] | {"approvals": []}]}, "not signed"),
        ({"facts": []}, "no signed facts"),
    ):
        with pytest.raises(UsageError, match=refused):
            record_command(site.folder, _written(tmp_path / "bad.json", good | change))
    # A signature that was moved to another fact is for the ledger to refuse.
    moved = good["facts"][0] | {"blocks": 30}
    with pytest.raises(UsageError, match="signature"):
        record_command(site.folder, _written(tmp_path / "bad.json", good | {"facts": [moved]}))
    assert site.standing(plan) is Standing.PROPOSED


def test_what_people_must_hear_of_a_real_site(site: Site) -> None:
    """A plan that waits, and then one that was granted all that a domain of cap 3 has; then a daemon that is gone."""
    looker, now = Looker(site.made), datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
    assert notices(looker.look(now)) == []
    plan = site.propose(plan_of())
    (waiting,) = notices(looker.look(now))
    assert waiting.key == f"study/{plan.digest}/waiting" and "heart_disease" in waiting.sentence
    said(domain_open_command, site.folder, "training", 3.5, 200, [site.anna], True)
    site.approve(plan.study)
    assert notices(looker.look(now)) == []
    ledger = site.made.ledger()
    event = charge_for(plan, "north", "training")
    steps = []
    for number in range(1, plan.rounds + 1):
        ledger.reserve(
            Reserve(domain="training", block=f"b{number}", plan=plan.digest, round_number=number, event=event)
        )
        steps.append([notice.key for notice in notices(looker.look(now))])
    ledger.close()
    spent = 100 * (budget := site.office.study(plan.digest).budgets[0]).spent // budget.allowance
    assert spent >= 80 and ["budget/training/50"] in steps and steps[-1] == ["budget/training/80"]
    shown = said(notify_command, site.folder, True, True)
    assert "Of the privacy budget of 'training' 80 % is spent." in shown and "study show" in shown
    site.server.stop()
    assert [notice.key for notice in notices(looker.look(now))] == ["daemon/silent"]
