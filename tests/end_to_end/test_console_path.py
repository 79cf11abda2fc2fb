"""The path of an officer and an auditor, for real: processes, TLS, a ledger, a browser, a key file that stays in it.

A coordinator and three hospitals run as they do in a deployment; one hospital has a console, and nothing but its pages
is used there. What the pages say is compared with the accountant, with the ledger and with the coordinator's receipts.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from _ports import free_port

from wardround.client.governance import TRAINING_DOMAIN, grant_for, open_domain
from wardround.client.store.database import open_copy
from wardround.client.store.keys import write_officer_key
from wardround.client.store.ledger import Ledger
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.budget import delta_for
from wardround.protocol.ledger import Grant, Refuse, Release, Reserve, approve
from wardround.protocol.plan import StudyPlan
from wardround.server.store.studies import StudyFolder

pytestmark = [pytest.mark.slow, pytest.mark.server("chromium")]

THREE = ("cleveland", "hungarian", "va")
HERE = "va"
"""The hospital whose officer decides in the browser; the others have approved at their command lines."""

CAP = 12.0
ROUNDS = 60
COMMAND = [sys.executable, "-m", "wardround.console.cli"]
PASSWORD = "four words that nobody guesses"
PASSPHRASE = "another five words for keys"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
STEP = 30


@dataclass
class Account:
    """Somebody with an authenticator app, of which each code is taken once."""

    name: str
    secret: str
    step: int = field(default_factory=lambda: int(time.time()) // STEP - 2)

    def code(self) -> str:
        """The next code that the console takes: it allows one step before and after its own."""
        while self.step >= int(time.time()) // STEP + 1:
            time.sleep(0.5)
        self.step = max(self.step + 1, int(time.time()) // STEP - 1)
        return pyotp.TOTP(self.secret).at(self.step * STEP)


def account(folder: Path, name: str, role: str) -> Account:
    """Made as IT makes it, with the secret as the command shows it for typing."""
    said = subprocess.run(
        [*COMMAND, "site", "account", "add", str(folder), name, "--role", role],
        env={**os.environ, "WARDROUND_CONSOLE_PASSWORD": PASSWORD}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = re.search(r"type it into the app: ([A-Z2-7 ]+)", said)
    assert found is not None, said
    return Account(name, found[1].replace(" ", ""))


@contextmanager
def console(folder: Path) -> Iterator[str]:
    """``wardround site console`` as a process of its own; the address of its pages."""
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "site", "console", str(folder), "--port", str(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 90
    try:
        while True:
            try:
                httpx.get(f"{url}/login", trust_env=False)
                break
            except httpx.TransportError:
                assert time.monotonic() < until and process.poll() is None, "the console did not start"
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert "Traceback" not in said


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = next(found for name in CHROMIUM if (found := shutil.which(name)))
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def log_in(browser: Any, url: str, who: Account) -> Any:
    """Both steps of the login; the window, which notes what goes wrong in it."""
    window = browser.new_context(base_url=url, locale="en", accept_downloads=True).new_page()
    window.set_default_timeout(60_000)
    window.faults = []
    window.on("pageerror", lambda error: window.faults.append(str(error)))
    window.on("console", lambda said: said.type == "error" and window.faults.append(said.text))
    window.goto("/login")
    window.fill("#name", who.name)
    window.fill("#password", PASSWORD)
    window.click("main button[type=submit] >> nth=0")
    window.wait_for_url("**/login/code")
    window.fill("#code", who.code())
    window.click("main button[type=submit] >> nth=0")
    window.wait_for_url(f"{url}/")
    return window


def text_of(window: Any) -> str:
    return " ".join(window.inner_text("main").split())


def until(window: Any, deployed: Any, path: str, pattern: str, seconds: float) -> re.Match[str]:
    """Load a page again until it says what is waited for."""
    end = time.monotonic() + seconds
    while True:
        window.goto(path)
        if found := re.search(pattern, text_of(window)):
            return found
        assert time.monotonic() < end, f"{path} does not say {pattern}: {text_of(window)}\n{deployed.logs()}"
        time.sleep(1.0)


def decide(window: Any, path: str, key: Path, who: Account, code: str | None = None) -> str:
    """Sign what the page asks with the key file in the browser, type the code, press the button; what it says then."""
    window.goto(path)
    window.set_input_files("#key-file", key)
    window.fill("#passphrase", PASSPHRASE)
    window.click("[data-sign-now]")
    window.wait_for_selector("[data-sign-now]:not([disabled])")
    assert "Signed. Nothing is decided yet" in window.inner_text("[data-sign-says]")
    window.fill("#code", who.code() if code is None else code)
    with window.expect_navigation():
        window.click("main form[enctype] button[type=submit] >> nth=-1")
    return text_of(window)


def facts(place: Any) -> list[Any]:
    """The facts of a hospital's ledger, read beside its daemon."""
    ledger = Ledger(open_copy(place.database), place.site, place.identity())
    try:
        return list(ledger.facts())
    finally:
        ledger.close()


def used(plan: StudyPlan, delta: float, charged: int) -> str:
    """What the overview must say: the accountant's epsilon of so many rounds, rounded up."""
    return str(rounded_up(epsilon([grant_for(plan, HERE).event] * charged, delta)))


def prepared(deployed: Any, plan: StudyPlan) -> tuple[StudyFolder, float]:
    """The study at the coordinator, approved everywhere but here, where only the budget is open; (folder, delta)."""
    for site in THREE:
        if site != HERE:
            deployed.consortium.approve(plan, site)
    place, delta = deployed.consortium.folders[HERE], delta_for(plan.declared_patients(HERE))
    ledger, key = place.ledger(), place.identity().public.key.hex()
    fact: Any = open_domain(TRAINING_DOMAIN, CAP, delta)
    for officer in deployed.consortium.officers:
        fact = approve(fact, key, officer)
    ledger.record(fact)
    ledger.close()
    deployed.registry.propose(plan)
    deployed.registry.want(plan.digest, "running")
    return StudyFolder.create(deployed.hub.studies, plan), delta


def test_an_officer_approves_and_revokes_and_an_auditor_takes_the_proof_away(
    deploy: Callable[..., Any], make_plan_of: Callable[..., StudyPlan], browser: Any, tmp_path: Path
) -> None:
    plan = make_plan_of(
        f"rounds={ROUNDS}", "privacy.noise_multiplier=12", "local.steps=1", "data.dataset=null",
        "+data.declared={cleveland:200,hungarian:200,va:100}", "deadline_seconds=60",
    )  # fmt: skip
    deployed = deploy(THREE)
    place, at = deployed.consortium.folders[HERE], f"/studies/{plan.digest}/decide"
    study, delta = prepared(deployed, plan)
    anna, key = deployed.consortium.officers[0], tmp_path / "anna.key"
    write_officer_key(key, anna, PASSPHRASE)
    officer, auditor = account(place.path, "anna", "officer"), account(place.path, "otto", "auditor")
    deployed.start_all()
    with console(place.path) as url:
        # The officer finds a study that waits, and reads what it costs.
        window = log_in(browser, url, officer)
        waits = rf"The study '{re.escape(plan.title)}' \({plan.digest[:12]}\) waits for a decision\."
        until(window, deployed, "/", waits, 240)
        until(window, deployed, f"/studies/{plan.digest}", "Standing Proposed", 240)
        cost = rounded_up(epsilon([grant_for(plan, HERE).event] * ROUNDS, plan.privacy.delta))
        assert str(cost) in text_of(window) and not facts_of(place, Grant)

        # A wrong code decides nothing; the right one, after her own key has signed in her browser, does.
        assert "Nothing was recorded." in decide(window, at, key, officer, "000000")
        assert not facts_of(place, Grant)
        assert "Recorded: the plan is approved." in decide(window, at, key, officer)
        assert [grant.blocks for grant in facts_of(place, Grant)] == [ROUNDS]

        # The study runs, and the budget falls as the accountant says.
        deployed.until(240, lambda: len(study.receipts()) >= 2, "no round ended")
        found = until(window, deployed, "/", rf"ε ([\d.]+) of at most {CAP:g} used", 240)
        now = len(facts_of(place, Reserve))
        assert found[1] in {used(plan, delta, charged) for charged in range(1, now + 1)}
        later = until(window, deployed, "/", rf"ε (?!{re.escape(found[1])} )([\d.]+) of at most {CAP:g} used", 240)
        assert float(later[1]) > float(found[1])
        assert not deployed.state(plan), "the study is still running"

        # She revokes: the next message of the coordinator is refused, and no round is charged any more.
        assert "Recorded: the approval is taken back" in decide(window, f"{at}?decision=revoke", key, officer)
        deployed.until(240, lambda: bool(facts_of(place, Refuse)), "nothing was refused")
        all_facts = facts(place)
        revoked = max(number for number, fact in enumerate(all_facts) if isinstance(fact, Grant))
        assert all_facts[revoked].blocks == 0
        assert not [fact for fact in all_facts[revoked:] if isinstance(fact, Reserve | Release)]
        charged = sum(isinstance(fact, Reserve) for fact in all_facts)
        assert 2 <= charged < ROUNDS
        until(window, deployed, "/", rf"ε {re.escape(used(plan, delta, charged))} of at most {CAP:g} used", 240)
        assert [fault for fault in window.faults if "403" not in fault] == []

        # The auditor may decide nothing; she checks the ledger, and takes a paper away that holds elsewhere.
        window = log_in(browser, url, auditor)
        assert window.goto(at).status == 403
        window.goto("/audit/verify")
        window.click("main form button[type=submit]")
        until(window, deployed, "/audit/verify", "The ledger holds.", 240)
        window.goto("/papers")
        window.select_option("#study", plan.digest)
        with window.expect_download() as download:
            window.click("form[action='/papers/study'] button[type=submit]")
        paper = tmp_path / "statement.pdf"
        download.value.save_as(paper)
    said = checked(paper)
    assert said.returncode == 0, said.stdout + said.stderr
    spoilt, content = tmp_path / "spoilt.pdf", bytearray(paper.read_bytes())
    content[len(content) // 2] ^= 1
    spoilt.write_bytes(content)
    assert checked(spoilt).returncode != 0
    log = (place.path / "logs" / "console.log").read_text()
    assert "role=officer" in log and "role=auditor" in log
    assert [
        text for text in (PASSWORD, PASSPHRASE, officer.secret, auditor.secret, "anna", plan.title) if text in log
    ] == []


def facts_of(place: Any, kind: type) -> list[Any]:
    return [fact for fact in facts(place) if isinstance(fact, kind)]


def checked(paper: Path) -> Any:
    """What ``wardround report verify`` says of a paper."""
    return subprocess.run([*COMMAND, "report", "verify", str(paper)], capture_output=True, text=True, check=False)
