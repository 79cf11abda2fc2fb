"""Notices on their page, on the overview and at the navigation are those of the e-mails, in the reader's language."""

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from wardround.client.governance import grant_for
from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence
from wardround.client.store.receipts import Receipts
from wardround.console.notices.journal import JOURNAL, Journal, Outcome
from wardround.console.notices.watching import Level, Notice, notices
from wardround.console.web import i18n
from wardround.console.web.pages import notices as page
from wardround.console.web.queries.noticing import waiting_for
from wardround.console.web.roles import Role
from wardround.protocol.receipt import Receipt

NOW = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
NOTE = Notice("study/ab/waiting", Level.NOTE, "waits", "decide")


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def spend(world: Any, helpers: Any, per_cent: int) -> None:
    """Spend the domain ``training`` up to so many per cent, counted by hand from the price of a round."""
    plan = helpers.plan_of("rounds=500", "privacy.noise_multiplier=2.84")
    world.proposed(plan)
    world.office.record([world.signed(grant_for(plan, "north"))])
    ledger = world.folder.ledger()
    domain = ledger.state.domains["training"]
    price = ledger.state.grants[plan.digest, "training"].price
    rounds = -(-(domain.allowance * per_cent // 100 - domain.spent) // price)
    ledger.close()
    world.ran(plan, rounds)


@pytest.mark.parametrize(("per_cent", "words"), [(40, ""), (50, "50 % is spent"), (80, "80 % is spent")])
def test_a_budget_is_noticed_at_its_steps(world: Any, client_as: Any, helpers: Any, per_cent: int, words: str) -> None:
    spend(world, helpers, per_cent)
    for role in ("officer", "it", "auditor"):
        text = text_of(client_as(role).get("/notices"))
        assert ("Of the privacy budget of 'training'" in text) is bool(words)
        assert words in text
    assert words in text_of(client_as("officer").get("/")) and "is spent" not in text_of(client_as("it").get("/"))


def test_the_page_says_what_the_rules_say_and_what_to_do(world: Any, client_as: Any, helpers: Any) -> None:
    world.daemon.change(state="paused", reason="the disk is full", link="down")
    store = open_store(world.folder.database)
    Evidence(store, "north").keep("request", b"two of one")
    store.close()
    client = client_as("auditor")
    queries = client.app.console
    found = notices(queries.noticing.seen(datetime.now(UTC), queries.ask(), queries.queries.view()), timedelta(0))
    assert {one.key.split("/")[0] for one in found} == {"alarm", "daemon", "link", "study"}
    text = text_of(client.get("/notices"))
    for one in found:
        assert one.sentence in text and one.cure in text
    assert text.index("contradicts what they signed") < text.index("is down since") < text.index("waits for a decision")


def test_a_daemon_that_does_not_answer_hides_no_study_and_no_budget(world: Any, client_as: Any, helpers: Any) -> None:
    spend(world, helpers, 80)
    client = client_as("officer")
    world.control.stop()
    text = text_of(client.get("/notices"))
    assert "The site's daemon does not answer." in text
    assert "waits for a decision" in text and "80 % is spent" in text


def test_a_void_round_is_noticed_until_a_later_one_has_closed(world: Any, client_as: Any, helpers: Any) -> None:
    plan, nothing = helpers.plan_of().digest, "0" * 64

    def ended(number: int, state: str, *by: str) -> None:
        store = open_store(world.folder.database)
        receipt = Receipt(
            study="hearts", plan=plan, roster=None, roster_epoch=None, round_number=number, attempt=1,
            at="2026-11-29T08:00:00Z", state=state, model_before=nothing, model_after=nothing, sites=(), voided_by=by,
            conditions="none", previous=nothing,
        )  # fmt: skip
        Receipts(store).keep(receipt)
        store.close()

    client = client_as("it")
    ended(8, "closed")
    ended(9, "void", "north")
    ended(10, "void", "east")
    text = text_of(client.get("/notices"))
    assert re.search(r"Round 9 of .* attempt 1, was void, because of north\.", text) and "because of east" in text
    overview = text_of(client.get("/"))
    assert "because of north" in overview and "because of east" not in overview
    ended(11, "closed")
    assert "was void" not in text_of(client.get("/notices"))


def test_a_notice_leads_to_the_page_where_it_can_be_done_if_there_is_one_for_the_role() -> None:
    def found(key: str, *pages: tuple[str, tuple[Role, ...]], role: Role = Role.OFFICER) -> str:
        from types import SimpleNamespace as Made

        listed: Any = [Made(path=path, roles=frozenset(roles)) for path, roles in pages]
        return page.where(Notice(key, Level.NOTE, "a", "b"), role, listed)

    decide = ("/studies/{digest}/decide", (Role.OFFICER,))
    read = ("/studies/{digest}", (Role.OFFICER, Role.IT))
    assert found("study/ab12/waiting", decide, read) == "/studies/ab12"  # whoever decides reads first
    assert found("study/ab12/waiting", decide, read, role=Role.IT) == "/studies/ab12"
    assert found("study/ab12/waiting") == ""
    assert found("budget/training/80", ("/budget", (Role.IT,))) == ""
    assert found("daemon/silent", ("/health", (Role.OFFICER,))) == "/health"
    assert found("something/else", decide) == ""


def test_what_was_sent_stands_at_its_notice_and_in_the_table_delivered_or_not(world: Any, client_as: Any) -> None:
    client = client_as("it")
    console = client.app.console
    waits = next(one for one in console.noticing.look() if one.key.startswith("study/"))
    journal = Journal(world.path / JOURNAL)
    for _ in range(3):
        journal.note(NOW, "email", Outcome.FAILED, [waits], "the mail server did not take the message <b>(OSError)</b>")
    journal.note(NOW, "webhook", Outcome.SENT, [waits])
    answer = client.get("/notices")
    text = text_of(answer)
    assert "E-mail: not delivered, 29 Nov 2026, 08:00 UTC" in text
    assert "Webhook: delivered, 29 Nov 2026, 08:00 UTC" in text
    assert "Failed 3 times" in text and "(OSError)" in text and "<b>(OSError)" not in answer.text


def test_a_journal_is_closed_to_others_keeps_the_newest_and_survives_damage(tmp_path: Any) -> None:
    journal = Journal(tmp_path / JOURNAL)
    for number in range(230):
        journal.note(NOW + timedelta(minutes=number), "email", Outcome.SENT, [NOTE])
    assert (tmp_path / JOURNAL).stat().st_mode & 0o077 == 0
    kept = journal.read()
    assert len(kept) == 200 and kept[0].at == NOW + timedelta(minutes=229)
    (tmp_path / JOURNAL).write_text("{")
    assert journal.read() == ()
    journal.note(NOW, "email", Outcome.SENT, [NOTE])
    assert len(journal.read()) == 1


def test_a_sentence_of_the_journal_is_said_in_the_readers_language(world: Any, client_as: Any) -> None:
    client = client_as("it")
    waits = next(one for one in client.app.console.noticing.look() if "A second look" in one.sentence)
    Journal(world.path / JOURNAL).note(NOW, "email", Outcome.SENT, [waits])
    (kept,) = Journal(world.path / JOURNAL).read()
    said = kept.notices[0].sentence.said()
    assert said == waits.sentence
    i18n.use("fr")
    assert "attend une décision" in i18n.said_again(said) and "A second look" in i18n.said_again(waits.sentence)
    i18n.use("en")
    assert i18n.said_again(waits.sentence) == waits.sentence


def test_the_navigation_counts_what_waits_for_the_role(world: Any, client_as: Any) -> None:
    def count(role: str) -> str:
        client = client_as(role)
        client.get("/notices")
        found = re.search(r'<span class="count"><span aria-hidden="true">(\d+)', client.get("/health").text)
        return found[1] if found else ""

    assert (count("officer"), count("it"), count("auditor")) == ("2", "", "")
    world.daemon.change(link="down")
    assert (count("officer"), count("it"), count("auditor")) == ("3", "1", "")


def test_no_page_waits_for_the_count(world: Any, monkeypatch: Any, client_as: Any) -> None:
    noticing = client_as("officer").app.console.noticing
    monkeypatch.setattr(noticing, "_kept", None)
    ends = threading.Event()
    monkeypatch.setattr(noticing, "look", lambda: ends.wait(60))
    began = time.monotonic()
    assert noticing.count(Role.OFFICER) == 0 and time.monotonic() - began < 50
    ends.set()


def test_who_decides_nothing_has_nothing_waiting_and_officers_matters_wait_for_officers() -> None:
    found = [Notice(f"{kind}/x/1", Level.SOON, "a", "b") for kind in ("alarm", "daemon", "budget", "study", "round")]
    found.append(Notice("round/x/2", Level.NOTE, "a", "b"))
    assert waiting_for(Role.AUDITOR, found) == []
    assert [one.key for one in waiting_for(Role.IT, found)] == ["alarm/x/1", "daemon/x/1", "round/x/1"]
    assert waiting_for(Role.OFFICER, found) == found[:-1]


def test_a_test_message_goes_to_the_webhook_signed_once_in_half_a_minute(
    world: Any, client_as: Any, helpers: Any, monkeypatch: Any
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(page, "_tested_at", -1e9)
    monkeypatch.setattr("wardround.console.notices.channels.Webhook.send", lambda self, seen, found: sent.append(found))
    (world.path / "notify.yaml").write_text("webhook: {url: 'https://hooks.example.org/secret-part', secret_file: s}\n")
    client = client_as("it")
    shown = client.get("/notices").text
    assert "hooks.example.org" in shown and "secret-part" not in shown
    token = helpers.csrf(client, "/notices")
    answer = client.post("/notices/test", data={"csrf": token})
    assert "The test message was handed over." in text_of(answer) and "This is a test message" in text_of(answer)
    assert "Wait half a minute" in text_of(client.post("/notices/test", data={"csrf": token}))
    assert len(sent) == 1 and sent[0][0].key == "test"
    for role in ("officer", "auditor"):
        other = client_as(role)
        assert other.post("/notices/test", data={"csrf": helpers.csrf(other, "/notices")}).status_code == 403
    assert len(sent) == 1


def test_a_test_message_that_is_not_taken_is_said(world: Any, client_as: Any, helpers: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(page, "_tested_at", -1e9)
    (world.path / "notify.yaml").write_text(
        json.dumps({"email": {"host": "127.0.0.1", "port": 9, "security": "none", "sender": "a@b", "to": ["c@d"]}})
    )
    client = client_as("it")
    text = text_of(client.post("/notices/test", data={"csrf": helpers.csrf(client, "/notices")}))
    assert "was not taken" in text and "the mail server did not take the message" in text


def test_a_site_that_tells_nobody_says_so(new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "it")
        text = text_of(client.get("/notices"))
        assert "There is nothing that people must know now." in text
        assert "Nobody is told outside of this console." in text and "Nothing was sent yet." in text
        (new_world.path / "notify.yaml").write_text("email: {}\n")
        assert "notify.yaml is not understood" in text_of(client.get("/notices"))
