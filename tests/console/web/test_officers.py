"""The page of officers' keys: who may sign, what waits, and the command that signs it again."""

import re
from html import unescape
from itertools import product
from typing import Any

import pytest

from wardround.client.store.keys import fingerprint
from wardround.console.web.queries.officers import officers
from wardround.console.web.queries.site import SiteQueries
from wardround.protocol.ledger import Suspend
from wardround.protocol.messages import Standing


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def suspend(world: Any, note: str = "") -> None:
    fact = Suspend(key=world.anna.public.key.hex(), reason="stolen", note=note)
    world.office.record([world.signed(fact, world.ben)])


def test_every_key_stands_with_its_fingerprint_and_what_it_approved(world: Any, client_as: Any) -> None:
    found = officers(SiteQueries(world.folder))
    assert [(line.officer.name, line.officer.may_sign, line.approvals, line.waiting) for line in found.keys] == [
        ("anna", True, 1, 0),
        ("ben", True, 0, 0),
    ]
    for role in ("officer", "it", "auditor"):
        text = text_of(client_as(role).get("/officers"))
        assert fingerprint(world.anna.public.key) in text and "May sign" in text
        assert "Waits to be signed again" not in text and "Fewer than two" not in text


def test_a_suspended_key_stops_its_studies_and_the_page_says_how_each_is_signed_again(
    world: Any, client_as: Any, helpers: Any
) -> None:
    plan = helpers.plan_of()
    suspend(world, note=f"train {helpers.HOSTILE[:60]}")
    answer = client_as("officer").get("/officers")
    text = text_of(answer)
    assert "Suspended: stolen" in text and "<script>alert" not in answer.text
    assert f"wardround site study approve FOLDER {plan.digest[:12]} --officer-key FILE" in text
    assert "wardround site domain open FOLDER training --patients N --epsilon-cap E --officer-key FILE" in text
    assert "What the suspended key of anna has signed" in text and "Fewer than two keys may sign" in text
    view = SiteQueries(world.folder).view()
    assert view.officers == ("ben",)
    assert [line.standing for line in view.studies if line.digest == plan.digest] == [Standing.SUSPENDED]


def test_an_officer_is_told_on_the_overview_and_an_auditor_waits_for_nothing(world: Any, client_as: Any) -> None:
    words = "Studies to be signed again: 1."
    assert words not in text_of(client_as("officer").get("/"))
    suspend(world)
    client = client_as("officer")
    assert words in text_of(client.get("/")) and "Suspended" in text_of(client.get("/"))
    assert words not in text_of(client_as("auditor").get("/"))


@pytest.mark.server("chromium")
def test_the_page_with_a_suspended_key_is_accessible_and_fits(
    world: Any, visits: Any, axe: Any, screenshot: Any
) -> None:
    suspend(world, note="laptop bag, on the train between the two hospitals")
    for scheme, width in product(("light", "dark"), (360, 1280)):
        with visits.page(world, "officer", scheme=scheme, width=width) as window:
            window.goto("/officers")
            screenshot(window, f"officers-suspended-{scheme}-{width}")
            assert axe(window) == []
            assert window.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
            assert window.faults == []
