"""Studies and Study: their figures are those of accountant and filter, no text of a plan acts, nothing is cut off."""

import hashlib
import json
import math
import re
import time
from html import unescape
from typing import Any

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for
from wardround.client.store.database import open_store
from wardround.console.i18n import use
from wardround.console.plan_changes import changes
from wardround.console.plan_words import conditions_words, everyone_words, in_words, sections
from wardround.console.web.queries.costs import bounds, cost_of, curve, with_terms
from wardround.console.web.queries.site import SiteQueries
from wardround.console.web.queries.studies import PAGE_SIZE, figures, study_list, study_view
from wardround.privacy.accounting import rounded_up
from wardround.privacy.budget import allowance, cost
from wardround.privacy.meaning import conditions
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import Standing
from wardround.protocol.plan import PrivacyTerms, StudyPlan


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def independent_epsilon(sigma: float, q: float, steps: int, delta: float) -> float:
    """By dp-accounting alone, on a grid of its own choice."""
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = PLDAccountant(relation)
    step = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    return float(accountant.get_epsilon(delta))


def dist_plan(plan: StudyPlan) -> StudyPlan:
    """The same study with a share of the noise from each of five hospitals."""
    content = plan.model_dump()
    sites = [{"site": name, "declared_patients": 200} for name in ("east", "north", "south", "up", "west")]
    privacy = content["privacy"] | {"mode": "dist", "secure_aggregation": True, "epsilon": 9.0}
    privacy |= {"epsilon_consortium": 5.0}
    local = content["local"] | {"steps": 1}
    return StudyPlan.model_validate(content | {"participants": sites, "privacy": privacy, "local": local})


def masked_plan(plan: StudyPlan) -> StudyPlan:
    """The same study without differential privacy: sums only."""
    terms = PrivacyTerms(mode="none", secure_aggregation=True).model_dump()
    return StudyPlan.model_validate(plan.model_dump() | {"privacy": terms, "title": "Sums only"})


@pytest.mark.parametrize(("rounds", "noise"), [(20, 2.84), (7, 2.84), (20, 4.1), (41, 1.7)])
def test_a_cost_is_what_dp_accounting_says_and_what_the_filter_would_admit(
    shown: Any, helpers: Any, rounds: int, noise: float
) -> None:
    plan, queries = helpers.plan_of("rounds=10", "privacy.noise_multiplier=3.5"), SiteQueries(shown.folder)
    view = study_view(queries, shown.examples["digest"])
    assert view is not None and view.plan.title == "A second look at chest pain"
    q, delta, steps = plan.privacy.sampling_probability, plan.privacy.delta, plan.local.steps
    found = cost_of(view.plan, "north", view.rooms, rounds, noise)
    (figure,) = found.figures
    assert (figure.delta, figure.consortium) == (delta, False)
    assert figure.epsilon == pytest.approx(independent_epsilon(noise, q, steps * rounds, delta), rel=2e-3)
    domain = shown.folder.ledger().state.domains["training"]
    room = next(one for one in found.after if one.room.domain == "training")
    units = allowance(8.0, 1e-4, domain.fact.order)
    price = cost(charge_for(with_terms(view.plan, rounds, noise), "north", "training"), domain.fact.order)
    left = units - domain.spent - rounds * price
    assert room.fits is (left >= 0)
    assert (room.charges_left, room.studies_left) == (max(0, left // price), max(0, left // price // rounds))


def test_rounds_of_the_plan_itself_that_were_charged_are_not_charged_again(shown: Any, helpers: Any) -> None:
    plan, queries = helpers.plan_of(), SiteQueries(shown.folder)
    view = study_view(queries, plan.digest)
    assert view is not None and [room.charged for room in view.rooms] == [7, 7]
    domain = shown.folder.ledger().state.domains["training"]
    price = cost(charge_for(plan, "north", "training"), domain.fact.order)
    left = allowance(8.0, 1e-4, domain.fact.order) - domain.spent
    own = cost_of(plan, "north", view.rooms, plan.rounds, 2.84).after[0]
    other = cost_of(plan, "north", view.rooms, plan.rounds + 1, 2.84).after[0]
    assert own.charges_left == (left - 13 * price) // price
    assert other.charges_left == max(0, (left - 21 * price) // price), "another plan begins with its first round"


def test_a_plan_of_shared_noise_has_both_figures(shown: Any, helpers: Any) -> None:
    plan = dist_plan(helpers.plan_of())
    delta, q = plan.privacy.delta, plan.privacy.sampling_probability
    own, shared = figures(with_terms(plan, 12, 3.0), "north")
    assert (own.consortium, shared.consortium) == (False, True)
    assert own.epsilon == pytest.approx(independent_epsilon(3.0, q, 12, delta), rel=2e-3)
    noise = 3.0 * math.sqrt(plan.honest_sites)
    assert plan.honest_sites > 1 and shared.epsilon == pytest.approx(independent_epsilon(noise, q, 12, delta), rel=2e-3)
    (first, *_, last) = curve(plan, "north", 30, 3.0)
    assert first.consortium < last.consortium < last.everyone


def test_the_curve_is_never_below_the_accountant_and_near_it(shown: Any, helpers: Any) -> None:
    plan = helpers.plan_of()
    q, delta, steps = plan.privacy.sampling_probability, plan.privacy.delta, plan.local.steps
    for point in curve(plan, "north", 60, 2.84)[::4]:
        exact = independent_epsilon(2.84, q, steps * point.rounds, delta)
        assert exact * (1 - 1e-3) <= point.everyone <= exact * 1.02


def test_the_page_shows_these_figures_with_their_conditions(client_as: Any, world: Any, helpers: Any) -> None:
    plan = helpers.plan_of()
    q, delta, steps = plan.privacy.sampling_probability, plan.privacy.delta, plan.local.steps
    client, path = client_as("officer"), f"/studies/{plan.digest}"
    proposed, asked = (rounded_up(independent_epsilon(2.84, q, steps * rounds, delta)) for rounds in (20, 6))
    for where in (path, f"{path}/cost"):
        text = text_of(client.get(where, params={"rounds": "6"}))
        assert f"ε {proposed}" in text and f"ε {asked}" in text
        row = text.split("Epsilon against everyone", 1)[1][:260]
        for condition in ("δ = 0.0001", "one patient of this hospital", "adding or removing", "whoever colludes"):
            assert condition in row
    assert "more than the plan says" not in text
    assert "a plan with other terms is another plan" in text_of(client.get(path))


def test_a_plan_that_costs_more_than_it_says_is_named_wherever_it_is_read(
    client_as: Any, world: Any, helpers: Any
) -> None:
    plan = world.proposed(helpers.plan_of(*helpers.BROKEN))
    q, delta, steps = plan.privacy.sampling_probability, plan.privacy.delta, plan.local.steps
    cost = rounded_up(independent_epsilon(2.84, q, steps * 20, delta))
    client, words = client_as("officer"), f"the plan says epsilon 3 and costs {cost}, both at delta 0.0001; unit: "
    text = text_of(client.get(f"/studies/{plan.digest}"))
    assert "more than the plan says: at most 3" in text and "This plan costs more than it says" in text
    assert words in text and "adjacency: add or remove one patient; against everyone, whoever colludes" in text
    assert "more than the plan says" in text_of(client.get("/studies"))
    decide = client.get(f"/studies/{plan.digest}/decide")
    assert f"this plan cannot run here: {words}" in text_of(decide) and 'id="signed"' not in decide.text
    assert "only another plan of the researcher" in text_of(decide)
    assert client.get(f"/studies/{plan.digest}/decide/request.json").status_code == 409
    assert f"It cannot run here as it is: {words}" in text_of(client.get("/notices"))


@pytest.mark.parametrize(
    "query",
    ["rounds=0", "rounds=-3", "rounds=1.5", "rounds=many", "rounds=10001", "rounds=1e400", "rounds=٣", "noise=0",
     "noise=nan", "noise=inf", "noise=-1", "noise=1e9", "noise=" + "1" * 30, "noise=<b>"],
)  # fmt: skip
def test_nonsense_is_refused_with_what_would_be_right(client_as: Any, world: Any, query: str) -> None:
    client, path = client_as("it"), f"/studies/{world.examples['digest']}"
    for where in (path, f"{path}/cost"):
        answer = client.get(f"{where}?{query}")
        assert answer.status_code == 400
        said = "These rounds cannot be planned. Give a whole number from 1 to 10,000."
        if query.startswith("noise"):
            said = "This noise multiplier cannot be planned. Give a number from 0.1 to 100."
        assert said in text_of(answer) and "<b>" not in answer.text


def test_the_first_answer_of_the_planner_takes_less_than_a_second_of_the_processor(client_as: Any, world: Any) -> None:
    client, path = client_as("officer"), f"/studies/{world.examples['digest']}/cost"
    client.get(path)
    taken = []
    for _ in range(2):
        began = time.process_time()
        assert client.get(f"{path}?rounds=17&noise=3.21").status_code == 200
        taken.append(time.process_time() - began)
    print(f"first answer {taken[0]:.2f} s, again {taken[1]:.3f} s")
    assert taken[0] < 1.0 and taken[1] < 0.2


def test_a_plan_without_differential_privacy_says_so_and_is_not_planned(
    client_as: Any, world: Any, helpers: Any
) -> None:
    plan = world.proposed(masked_plan(helpers.plan_of()))
    client = client_as("officer")
    text = text_of(client.get(f"/studies/{plan.digest}"))
    assert text.count("No privacy guarantee, sums only") == 2 and "ε" not in text
    assert "which this site's policy does not allow" in text
    assert client.get(f"/studies/{plan.digest}/cost").status_code == 400
    assert "no privacy guarantee, sums only" in text_of(client.get("/studies"))
    with pytest.raises(UsageError, match="no differential privacy"):
        bounds(plan)


def test_a_pilot_says_that_nothing_hides_one_hospital(client_as: Any, world: Any, helpers: Any) -> None:
    content = helpers.plan_of().model_dump()
    privacy = content["privacy"] | {"secure_aggregation": False}
    two = content | {"participants": content["participants"][:2], "min_sites": 2, "privacy": privacy}
    plan = world.proposed(StudyPlan.model_validate(two))
    text = text_of(client_as("auditor").get(f"/studies/{plan.digest}"))
    assert "This is a pilot of 2 hospitals So there is no secure aggregation" in text
    assert "readable by the coordinator" in text


def test_the_list_says_how_plans_stand_and_filters(client_as: Any, world: Any) -> None:
    client = client_as("auditor")
    text = text_of(client.get("/studies"))
    for words in ("All (4)", "Proposed (2)", "Approved (1)", "Refused (1)", "Revoked (0)", "7 of 20"):
        assert words in text
    approved = text_of(client.get("/studies?standing=approved"))
    assert "7 of 20" in approved and "A second look" not in approved
    assert "No study stands so." in text_of(client.get("/studies?standing=revoked"))
    for query in ("standing=nobody", "page=x", "page=99999", "page=-1"):
        assert client.get(f"/studies?{query}").status_code == 400


def test_a_new_site_has_an_empty_list(new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "officer")
        assert "No study was proposed to this site yet." in text_of(client.get("/studies"))


def test_more_than_fifty_plans_are_paged_and_each_is_on_one_page(new_world: Any, helpers: Any) -> None:
    plan = helpers.plan_of()
    many = [plan.model_copy(update={"title": f"Study {number}"}) for number in range(PAGE_SIZE + 3)]
    for one in many:
        new_world.proposed(StudyPlan.model_validate(one.model_dump()))
    queries = SiteQueries(new_world.folder)
    pages = [study_list(queries, None, number) for number in (1, 2, 99)]
    assert [len(page.rows) for page in pages] == [PAGE_SIZE, 3, 3] and pages[0].pages == 2
    titles = {row.line.title for page in pages[:2] for row in page.rows}
    assert titles == {one.title for one in many}
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "officer")
        assert "/studies?page=2&amp;standing=proposed" in client.get("/studies?standing=proposed").text
        assert "Page 2 of 2, 53 studies in all." in text_of(client.get("/studies?page=2"))


def test_a_newer_version_is_named_and_an_older_one_is_not(world: Any, client_as: Any, helpers: Any) -> None:
    old, new = helpers.plan_of(), world.examples["digest"]
    store = open_store(world.folder.database)
    store.execute("UPDATE studies SET received_at = '2026-01-01T00:00:00Z'")
    store.execute("UPDATE studies SET received_at = '2026-02-01T00:00:00Z' WHERE digest = ?", (new,))
    store.close()
    rows = {row.line.digest: row.newer for row in study_list(SiteQueries(world.folder), None, 1).rows}
    assert rows[old.digest] == new and rows[new] == ""
    assert f'href="/studies/{new}"' in client_as("it").get(f"/studies/{old.digest}").text


def test_what_changed_is_told_in_full(world: Any, client_as: Any, helpers: Any) -> None:
    before = helpers.plan_of()
    long = "Find narrowed arteries early. " * 40
    content = before.model_dump()
    purpose = content["governance"] | {"purpose": long + "For sale."}
    after = world.proposed(StudyPlan.model_validate(content | {"governance": purpose, "rounds": 21}))
    page = client_as("officer").get(f"/studies/{after.digest}")
    table = page.text.split('class="cards-on-phones changes"', 1)[1].split("</table>", 1)[0]
    cells = [
        " ".join(unescape(re.sub(r"<[^>]+>", " ", one)).split())
        for one in re.findall(r"<t[hd].*?</t[hd]>", table, re.S)
    ]
    assert cells[3:] == [
        "Purpose governance.purpose", before.governance.purpose, (long + "For sale.").strip(),
        "Rounds rounds", "20", "21",
    ]  # fmt: skip
    assert [one.path for one in changes(before, after)] == ["governance.purpose", "rounds"]


def test_no_plan_is_compared_with_itself_or_with_one_that_was_never_approved(
    world: Any, client_as: Any, helpers: Any
) -> None:
    queries = SiteQueries(world.folder)
    approved, refused = helpers.plan_of(), helpers.plan_of("rounds=3", "privacy.noise_multiplier=2.84")
    assert study_view(queries, approved.digest).former is None
    assert study_view(queries, refused.digest).former == approved
    assert "What changed since" not in text_of(client_as("it").get(f"/studies/{approved.digest}"))


def test_how_a_plan_stands_is_told(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    refused = helpers.plan_of("rounds=3", "privacy.noise_multiplier=2.84")
    text = text_of(client.get(f"/studies/{refused.digest}"))
    assert "Refused because the ethics reference is missing" in text
    (world.path / "policy.yaml").write_text("rounds_at_most: 5\n")
    text = text_of(client.get(f"/studies/{helpers.plan_of().digest}"))
    assert "would not let this plan run" in text and "the site's policy ends at 5" in text
    assert "Granted on training 20 rounds granted, 7 charged" in text
    assert f"Granted on {CONSORTIUM_DOMAIN} 20 rounds granted, 7 charged" in text


def test_no_text_of_a_plan_acts_on_the_page(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    titles = [helpers.HOSTILE, "R\u202eTL \u2066marks\u2069 " * 30, "x" * 10_000, "\x00\x07\x1b[31m", " "]
    for number, title in enumerate(titles):
        content = helpers.plan_of().model_dump() | {"title": title, "rounds": 4 + number}
        plan = world.proposed(StudyPlan.model_validate(content))
        pages = [client.get(path) for path in ("/", "/studies", f"/studies/{plan.digest}")]
        assert [page.status_code for page in pages] == [200] * 3
        for page in pages:
            assert "<script>alert" not in page.text and "<img" not in page.text
            assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u200b\x00-\x08\x0b-\x1f]", page.text)
            assert len(page.content) < 90_000
        assert f'href="/studies/{plan.digest}"' in pages[1].text, "a title of nothing is still a link"


@pytest.mark.parametrize("role", ["officer", "it", "auditor"])
def test_an_unknown_or_malformed_digest_is_the_page_of_404(world: Any, client_as: Any, role: str) -> None:
    client, known = client_as(role), world.examples["digest"]
    for digest in ("0" * 64, known[:12], known.upper(), known + "0", "a%00b", "%2e%2e", "'; DROP TABLE studies --"):
        for more in ("", "/cost", "/plan.json", "/cost?rounds=3"):
            answer = client.get(f"/studies/{digest}{more}")
            assert answer.status_code == 404 and "There is no such page." in text_of(answer)
    assert client.get(f"/studies/{known}").status_code == 200


def test_nobody_reads_a_study_without_a_login_and_nobody_writes_one(world: Any, client_as: Any, helpers: Any) -> None:
    path = f"/studies/{world.examples['digest']}"
    with helpers.new_client(world.app()) as stranger:
        for more in ("", "/cost", "/plan.json"):
            assert stranger.get(path + more, follow_redirects=False).status_code == 303
    for role in ("officer", "it", "auditor"):
        client = client_as(role)
        token = helpers.csrf(client)
        for more in ("", "/cost", "/plan.json"):
            assert client.post(path + more, data={"csrf": token}).status_code in (403, 405)


def test_the_file_is_the_plan_that_was_proposed_byte_for_byte(world: Any, client_as: Any, helpers: Any) -> None:
    plan = helpers.plan_of()
    client = client_as("auditor")
    answer = client.get(f"/studies/{plan.digest}/plan.json")
    assert answer.content == plan.canonical and answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == f'attachment; filename="plan-{plan.digest[:12]}.json"'
    page = text_of(client.get(f"/studies/{plan.digest}"))
    assert hashlib.sha256(answer.content).hexdigest() in page
    framed = b"wardround/plan/1\x00" + len(answer.content).to_bytes(8, "big") + answer.content
    assert hashlib.sha256(framed).hexdigest() == plan.digest, "as the page says how to compute it"
    assert json.loads(answer.content)["rounds"] == 20


def test_only_officers_are_led_to_a_decision_and_only_where_one_can_be_taken(
    world: Any, client_as: Any, monkeypatch: Any
) -> None:
    digest = world.examples["digest"]
    path = f"/studies/{digest}/decide"
    for role in ("officer", "it", "auditor"):
        client = client_as(role)
        there = any(page.path == "/studies/{digest}/decide" for page in client.app.console.pages)
        assert (f'href="{path}"' in client.get(f"/studies/{digest}").text) is (there and role == "officer")


def test_what_waits_on_the_overview_leads_to_its_study(world: Any, client_as: Any) -> None:
    page, digest = client_as("officer").get("/"), world.examples["digest"]
    assert f'<a href="/studies/{digest}">Read and decide</a>' in page.text
    assert f'<a class="as-given" href="/studies/{digest}">A second look at chest pain</a>' in page.text


def test_command_line_and_page_say_the_same_words(world: Any, client_as: Any, helpers: Any) -> None:
    for plan in (helpers.plan_of(), dist_plan(helpers.plan_of())):
        world.proposed(plan)
        text, lines = text_of(client_as("it").get(f"/studies/{plan.digest}")), list(in_words(plan))
        terms = [term for part in sections(plan) for term in part.terms]
        assert len(terms) > 20
        for term in terms:
            assert f"{term.name} {' '.join(term.text.split())}" in text
            assert any(line.strip() == f"{term.name}: {term.text}" for line in lines)
    assert conditions_words(1e-5, everyone_words()).replace("0.00001", "1e-05") == conditions(1e-5)


def test_the_words_of_a_plan_are_in_the_readers_language(helpers: Any) -> None:
    use("fr")
    try:
        text = "\n".join(in_words(helpers.plan_of()))
        assert "Finalité: " in text and "à delta 0,0001" in text and "20 tours de" in text
    finally:
        use("en")
    assert "Purpose: " in "\n".join(in_words(helpers.plan_of()))


def test_standings_are_counted_as_the_office_counts_them(world: Any) -> None:
    counts = study_list(SiteQueries(world.folder), Standing.PROPOSED, 1).counts
    office = [study.standing for study in world.office.studies()]
    assert counts == {standing: office.count(standing) for standing in set(office)}


@pytest.mark.server("chromium")
def test_the_slider_shows_the_cost_and_the_form_does_without_a_script(
    world: Any, visits: Any, axe: Any, screenshot: Any
) -> None:
    from playwright.sync_api import expect

    digest = world.examples["digest"]
    with visits.page(world, "officer") as window:
        window.goto(f"/studies/{digest}")
        table = window.locator(".costs > table")
        before = table.locator("tr", has_text="Epsilon against everyone").locator("td").nth(1).inner_text()
        slider = window.locator("input[type=range][data-for=rounds]")
        window.evaluate(
            "window.moved = 0; new PerformanceObserver(l => { for (const e of l.getEntries()) "
            "if (!e.hadRecentInput) window.moved += e.value; }).observe({type: 'layout-shift'})"
        )
        slider.focus()
        for _ in range(5):
            window.keyboard.press("ArrowRight")
        expect(table.locator("tr", has_text="Rounds").locator("td").nth(1)).to_have_text("15")
        after = table.locator("tr", has_text="Epsilon against everyone").locator("td").nth(1).inner_text()
        assert float(after[2:]) > float(before[2:])
        assert after in window.text_content("[data-planner-said]")
        assert window.input_value("#rounds") == "15" and "rounds=15" in window.url
        assert window.evaluate("window.moved") < 0.02
        window.fill("#noise", "0")
        expect(window.locator("[data-planner-fault]")).to_contain_text("This noise multiplier cannot be planned.")
        screenshot(window, "study-planner-fault")
        window.fill("#noise", "7")
        expect(table.locator("tr", has_text="Noise multiplier").locator("td").nth(1)).to_have_text("7")
        assert window.text_content("[data-planner-fault]") == "" and axe(window) == []
        screenshot(window, "study-planner-moved")
        assert [fault for fault in window.faults if "status of 400" not in fault] == []
        plain = window.context.browser.new_context(
            base_url=visits.served(world).url, storage_state=window.context.storage_state(), java_script_enabled=False
        )
        still = plain.new_page()
        still.goto(f"/studies/{digest}")
        assert still.locator("input[type=range]").first.is_hidden()
        still.fill("#rounds", "15")
        still.click("form.planner button")
        assert still.locator("tr", has_text="Epsilon against everyone").locator("td").nth(1).inner_text() == after
        plain.close()
