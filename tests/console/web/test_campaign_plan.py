"""A campaign of indicators before it runs: every page says what it publishes and that it is charged once, as a whole.

Expected epsilons are the accountant's for one event, and expected budgets the filter's price of one block: by no code
of the pages.
"""

import re
from html import unescape
from math import sqrt
from typing import Any

import pytest
from typer.testing import CliRunner

from wardround.client.governance import grant_for
from wardround.client.signing import approval_facts, request_for
from wardround.client.store.keys import write_officer_key
from wardround.console.cli import app
from wardround.console.i18n import LANGUAGES, speaking
from wardround.console.paper.as_json import sign
from wardround.console.paper.gather import read_source, statement
from wardround.console.paper.model import Kind
from wardround.console.paper.sheets import render
from wardround.console.plan_words import in_words
from wardround.console.web.pages import PAGES
from wardround.console.web.queries import decide
from wardround.console.web.queries.costs import bounds, cost_of
from wardround.console.web.queries.studies import study_view
from wardround.console.web.roles import Face
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.budget import cost
from wardround.protocol.events import TreeGaussian
from wardround.protocol.ledger import Reserve
from wardround.protocol.plan import StudyPlan

DOMAINS = ("training", "test")
DOMAIN_DELTA = 1e-4
"""Of ``world.opened``."""

PASSPHRASE = "four words that nobody guesses"


@pytest.fixture
def plan(world: Any, helpers: Any) -> StudyPlan:
    made: StudyPlan = world.proposed(helpers.campaign_of())
    world.opened("test")
    return made


@pytest.fixture
def shared(world: Any, helpers: Any) -> StudyPlan:
    """A campaign whose hospitals add shares of noise, at a site with a budget on every curve that it needs."""
    made: StudyPlan = world.proposed(helpers.campaign_of(shared=True))
    world.opened("test")
    return made


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a site's policy lets a campaign run is another question."""
    monkeypatch.setattr(decide, "unfit_here", lambda plan, folder: None)


def once(plan: StudyPlan, delta: float | None = None) -> str:
    """The epsilon of the whole campaign, as it is shown; at the plan's own delta if no other is given."""
    return rounded_up(epsilon([plan.round_event("north")], delta or plan.privacy.delta or 0.0))


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    main = answer.text.split("<main", 1)[1].split("</main>", 1)[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())


def test_the_words_of_a_campaign_hold_every_bound_in_every_language(helpers: Any) -> None:
    said = set()
    for language in LANGUAGES:
        with speaking(language.code):
            text = "\n".join(in_words(helpers.campaign_of()))
        said.add(text)
        for part in ("admissions", "beds_in_use", "minutes_waited", "'wait'" if language.code != "fr" else "« wait »"):
            assert part in text
        for bound in ("90", "120 min", "2026-04-05 00:00", "6", "14"):
            assert bound in text, (language.code, bound)
        assert "gradient" not in text.casefold()
    assert len(said) > 1


@pytest.mark.parametrize(
    ("sites", "absence", "words"),
    [
        (1, "local", "one hospital's sum is its own"),
        (2, "local", "each knows the other's part"),
        (3, "gap", "needs all 3 hospitals: with one of them offline its secure sum is void"),
        (4, "wait", "needs 3 of 4 hospitals: 1 may be offline. A tick that too few answer is tried again"),
        (5, "local", "Any hospital makes a tick, added in the open"),
    ],
)
def test_the_approval_page_says_who_may_be_away_and_why_so(
    sites: int, absence: str, words: str, world: Any, client_as: Any, helpers: Any
) -> None:
    names = ("north", "east", "middle", "south", "west")[:sites]
    plan = world.proposed(helpers.campaign_of(names, on_absence=absence))
    for path in ("", "/decide"):
        text = text_of(client_as("officer").get(f"/studies/{plan.digest}{path}"))
        assert words in text
    leaves = text_of(client_as("officer").get(f"/studies/{plan.digest}")).split("What leaves your site", 1)[1]
    how = "under masks" if plan.privacy.secure_aggregation else "readable by the coordinator"
    assert leaves.startswith(f" In a tick one vector of noised sums{'' if 'under' in how else ','} {how}")


def test_every_page_shows_a_campaign_before_and_after_it_was_charged(
    world: Any, client_as: Any, plan: StudyPlan, allowed: None
) -> None:
    client = client_as("officer")
    routes = [route for page in PAGES if page.face is Face.SITE for route in page.router.routes]

    def look() -> None:
        asked = 0
        values = world.examples | {"digest": plan.digest, "plan": plan.digest}
        values |= {"charge": str(world.numbers(Reserve)[-1])}
        for route in routes:
            path = route.path
            for name, value in values.items():
                path = path.replace(f"{{{name}}}", value)
            if "GET" not in route.methods or "{" in path or path.endswith("/live"):
                continue
            answer = client.get(path)
            assert answer.status_code < 500, f"{path}: {answer.text[:300]}"
            asked += 1
        assert asked > 20

    look()
    world.granted(plan, *DOMAINS)
    world.published(plan, 5, *DOMAINS)
    look()


def test_the_study_page_says_what_the_whole_campaign_costs_and_counts_no_ticks(
    world: Any, client_as: Any, plan: StudyPlan
) -> None:
    view = study_view(client_as("officer").app.console.queries, plan.digest)
    assert view is not None and plan.privacy.noise_multiplier is not None
    found = cost_of(plan, "north", view.rooms, plan.rounds, plan.privacy.noise_multiplier)
    assert [rounded_up(one.epsilon) for one in found.figures if one.epsilon] == [once(plan)]
    assert not any(one.broken for one in found.figures)
    for after in found.after:
        price = cost(plan.round_event("north"), after.room.order)
        assert after.charges_left == after.studies_left == (after.room.left - price) // price
    text = text_of(client_as("officer").get(f"/studies/{plan.digest}"))
    assert f"ε {once(plan)}" in text and "charged once, however many of its ticks are published" in text
    assert "does not fit" not in text and "costs more than it says" not in text and "each round" not in text
    page = client_as("officer").get(f"/studies/{plan.digest}").text
    assert 'class="picture"' not in page and 'name="rounds" type="hidden" value="90"' in page


def test_other_noise_may_be_asked_for_and_other_ticks_may_not(client_as: Any, plan: StudyPlan) -> None:
    client, path = client_as("officer"), f"/studies/{plan.digest}/cost"
    assert (bounds(plan).least_rounds, bounds(plan).most_rounds) == (90, 90)
    noise = plan.privacy.noise_multiplier or 0.0
    event = plan.round_event("north").model_copy(update={"noise_multiplier": round(2 * noise, 2)})
    halved = rounded_up(epsilon([event], plan.privacy.delta or 0.0))
    asked = client.get(path, params={"rounds": "90", "noise": f"{2 * noise:.2f}"})
    assert asked.status_code == 200 and f"ε {halved}" in asked.text
    assert client.get(path, params={"rounds": "89", "noise": "3"}).status_code == 400


def test_an_officer_is_shown_the_cost_of_one_charge_and_signs_one_block(
    world: Any, client_as: Any, plan: StudyPlan, allowed: None
) -> None:
    page = client_as("officer").get(f"/studies/{plan.digest}/decide")
    text = text_of(page)
    assert "Approval: the plan may charge the whole campaign" in text
    assert text.count(f"ε at most {once(plan)}") == 2, "on each of the two data domains"
    assert "no privacy guarantee" not in text and "Rounds" not in text.split("What you sign")[1].split("Sign")[0]
    assert re.findall(r'data-part="blocks">(\d+)<', page.text) == ["1", "1"]
    assert "Times that each round may be charged" not in text
    world.granted(plan, *DOMAINS)
    assert "the whole campaign, not charged yet" in text_of(client_as("officer").get(f"/studies/{plan.digest}/decide"))


def both_of(plan: StudyPlan) -> tuple[str, str]:
    """(against everyone, against the coordinator and one other hospital): of one share, and of three."""
    share, delta = plan.round_event("north"), plan.privacy.delta or 0.0
    assert isinstance(share, TreeGaussian)
    three = share.model_copy(update={"noise_multiplier": share.noise_multiplier * sqrt(3)})
    return rounded_up(epsilon([share], delta)), rounded_up(epsilon([three], delta))


def test_an_officer_is_shown_and_signs_both_curves_of_a_campaign_of_shares(
    client_as: Any, shared: StudyPlan, allowed: None
) -> None:
    page = client_as("officer").get(f"/studies/{shared.digest}/decide")
    text, (alone, together) = text_of(page), both_of(shared)
    assert re.findall(r'data-part="domain">(\w+)<', page.text) == ["test", "training", "consortium"]
    assert re.findall(r'data-part="blocks">(\d+)<', page.text) == ["1", "1", "1"]
    assert text.count(f"ε at most {alone}") == 2 and text.count(f"ε at most {together}") == 1
    assert "against the coordinator and as many hospitals as a plan counts as colluding" in text


def test_the_words_of_a_campaign_of_shares_name_both_promises_and_the_shares(shared: StudyPlan) -> None:
    text = "\n".join(in_words(shared))
    noise = shared.privacy.noise_multiplier or 0.0
    for part in (
        "Epsilon of the whole study: at most 6 at delta",
        "Against the coordinator and at most 1 other hospital only: at most 3 at delta",
        f"its share of Gaussian noise, of standard deviation {noise:g}",
        f"at least 3 shares that those who may collude do not know, of {round(noise * sqrt(3), 3):g} together",
        "A tick needs 4 of 5 hospitals: 1 may be offline.",
    ):
        assert part in text, part
    with speaking("fr"):
        assert "sa part de bruit gaussien" in "\n".join(in_words(shared))


def test_pages_of_a_campaign_of_shares_name_both_promises(world: Any, client_as: Any, shared: StudyPlan) -> None:
    alone, together = both_of(shared)
    for path in ("", "/indicators"):
        text = text_of(client_as("officer").get(f"/studies/{shared.digest}{path}"))
        assert text.count(alone) and text.count(together), path
        assert "against the coordinator and as many hospitals as a plan counts as colluding" in text, path
    world.granted(shared, *DOMAINS, "consortium")
    world.published(shared, 3, *DOMAINS, "consortium")
    assert "3 of 90" in text_of(client_as("officer").get(f"/studies/{shared.digest}/indicators"))
    assert "a whole campaign: 1 charged" in text_of(client_as("officer").get("/budget/consortium"))


def test_a_tick_that_is_tried_again_is_not_charged_again(world: Any, client_as: Any, helpers: Any) -> None:
    plan = world.proposed(helpers.campaign_of(on_absence="wait"))
    assert plan.attempts == 3
    client, path = client_as("officer"), f"/studies/{plan.digest}/decide"
    assert client.get(path, params={"decision": "approve", "attempts": "1"}).status_code == 200
    assert client.get(path, params={"decision": "approve", "attempts": "2"}).status_code == 400


def test_lists_and_charges_call_it_a_campaign(world: Any, client_as: Any, plan: StudyPlan) -> None:
    client = client_as("officer")
    assert "nothing yet; the campaign is charged as a whole" in text_of(client.get("/studies"))
    world.granted(plan, *DOMAINS)
    world.published(plan, 3, *DOMAINS)
    for path in ("/studies", "/"):
        text = text_of(client.get(path))
        assert "the whole campaign" in text and " of 90" not in text, path
    domain = text_of(client.get("/budget/training"))
    assert "a whole campaign: 1 charged, 0 granted and unused" in domain
    charges = text_of(client.get(f"/budget/training/{plan.digest}"))
    assert "1 charged of 1 granted" in charges and f"ε {once(plan, DOMAIN_DELTA)}" in charges
    number = next(number for number in world.numbers(Reserve)[-2:])
    one = text_of(client.get(f"/budget/training/{plan.digest}/{number}"))
    assert "The whole campaign was charged, before the first event was read." in one
    assert "The answer of tick 3 left" in one and "random sample" not in one


def test_the_command_line_says_one_campaign_and_its_cost(world: Any, plan: StudyPlan, tmp_path: Any) -> None:
    shown = CliRunner().invoke(app, ["site", "study", "show", str(world.path), plan.digest[:12]])
    assert shown.exit_code == 0 and "more campaigns of this plan would fit (it has 1)" in shown.output
    assert "Published: beds_in_use: " in shown.output and "Campaigns charged so far: 0." in shown.output
    key = world.folder.identity().public.key.hex()
    facts = approval_facts(plan, "north", list(DOMAINS), 1, {})
    (tmp_path / "request.json").write_text(request_for(plan, "north", key, facts))
    write_officer_key(tmp_path / "anna.key", world.anna, PASSPHRASE)
    asked = ["officer", "sign", str(tmp_path / "request.json"), "--officer-key", str(tmp_path / "anna.key")]
    signed = CliRunner().invoke(app, [*asked, "--yes"], env={"WARDROUND_PASSPHRASE": PASSPHRASE})
    assert "the plan may charge 1 campaign on 'training' (version 1); it has 1" in signed.output


def test_approving_at_the_command_line_names_the_cost_of_one_charge(plan: StudyPlan) -> None:
    from wardround.console.commands.site_study import _cost

    lines = list(_cost(plan, "north", DOMAINS, 1))
    assert lines[0].startswith(f"You would grant 1 campaign on 'training': epsilon {once(plan)} ")


@pytest.mark.parametrize("language", ["en", "fr"])
def test_papers_say_what_was_published_and_that_it_was_charged_once(world: Any, plan: StudyPlan, language: str) -> None:
    world.granted(plan, *DOMAINS)
    world.published(plan, 3, *DOMAINS)
    source = read_source(world.folder)
    for kind in (Kind.STATEMENT, Kind.DPIA):
        page = render(sign(statement(source, plan.digest, kind=kind, language=language), source.identity), ".html")
        text = unescape(page.decode())
        assert "gradient" not in text.casefold() and "admission, discharge, wait" in text
        assert {"en": "charged once on 'training'", "fr": "débitée une fois sur « training »"}[language] in text
        assert once(plan, DOMAIN_DELTA).replace(".", "," if language == "fr" else ".") in text


def test_papers_name_both_curves_of_a_campaign_of_shares(world: Any, shared: StudyPlan) -> None:
    world.granted(shared, *DOMAINS, "consortium")
    world.published(shared, 3, *DOMAINS, "consortium")
    source = read_source(world.folder)
    page = render(sign(statement(source, shared.digest, kind=Kind.STATEMENT, language="en"), source.identity), ".html")
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page.decode())).split())
    share = shared.round_event("north")
    assert isinstance(share, TreeGaussian)
    for domain, shares in (("training", 1), ("test", 1), ("consortium", 3)):
        event = share.model_copy(update={"noise_multiplier": share.noise_multiplier * sqrt(shares)})
        assert f"charged once on '{domain}'" in text and rounded_up(epsilon([event], DOMAIN_DELTA)) in text, domain
    assert "dist: each site adds a share of the noise" in text


@pytest.mark.server("chromium")
def test_the_script_signs_what_a_campaign_of_shares_is_on_the_consortiums_curve(
    world: Any, visits: Any, shared: StudyPlan, allowed: None
) -> None:
    """The noise of three shares, to the last bit but one; of one, or of four, it signs nothing."""
    with visits.page(world, "officer") as window:
        window.goto(f"/studies/{shared.digest}/decide")
        script = """async (shares) => {
          const { check, shownOn } = await import('/static/sign.js');
          const request = JSON.parse(document.querySelector('#request').textContent);
          const event = request.facts.find((one) => one.domain === 'consortium').event;
          event.noise_multiplier *= Math.sqrt(shares / 3);
          try { return await check(request, shownOn(document)); } catch (error) { return error.words ?? String(error); }
        }"""
        assert window.evaluate(script, 3) == shared.digest
        assert window.evaluate(script, 1) == window.evaluate(script, 4) == "differs"


@pytest.mark.server("chromium")
def test_the_script_signs_one_block_of_a_campaign_and_no_other(
    world: Any, visits: Any, plan: StudyPlan, allowed: None, tmp_path: Any
) -> None:
    write_officer_key(tmp_path / "anna.key", world.anna, PASSPHRASE)
    with visits.page(world, "officer") as window:
        window.goto(f"/studies/{plan.digest}/decide")
        script = """async (change) => {
          const { check, shownOn } = await import('/static/sign.js');
          const request = JSON.parse(document.querySelector('#request').textContent), shown = shownOn(document);
          const fact = request.facts[0];
          if (change === 'blocks') { fact.blocks = 90; shown.facts[0][1].blocks = '90'; }
          else if (change) fact.event[change] = change === 'kind' ? 'poisson_gaussian' : fact.event[change] / 2;
          try { return await check(request, shown); } catch (error) { return error.words ?? String(error); }
        }"""
        assert window.evaluate(script, "") == plan.digest
        for change in ("blocks", "noise_multiplier", "ticks", "contributions", "kind"):
            assert window.evaluate(script, change) == "differs", change
        window.set_input_files("#key-file", tmp_path / "anna.key")
        window.fill("#passphrase", PASSPHRASE)
        window.click("[data-sign-now]")
        window.wait_for_selector("[data-sign-now]:not([disabled])")
        assert "Signed." in window.inner_text("[data-sign-says]")
        window.fill("#code", world.code("officer"))
        window.click("main form[enctype] button[type=submit] >> nth=-1")
        window.wait_for_load_state()
        assert "Recorded: the plan is approved." in window.inner_text("main")
    granted = {grant.domain: grant.blocks for grant in world.office.study(plan.digest).grants}
    assert granted == dict.fromkeys(DOMAINS, 1)
    assert isinstance(grant_for(plan, "north", "training").event, TreeGaussian)
