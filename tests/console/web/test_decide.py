"""Decisions in the console: what is recorded and by whom, and everything that must leave the ledger as it was."""

import json
import logging
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from wardround.client.governance import grant_for
from wardround.client.office import Office
from wardround.client.signing import read_request, sign
from wardround.client.store.keys import fingerprint
from wardround.console.web.accounts import FREE_ATTEMPTS
from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.budget import fixed_order
from wardround.protocol.errors import WardroundError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Close, OpenDomain, Refuse, Suspend, Waive
from wardround.protocol.messages import Standing

ClientAs = Callable[[str], Any]
WHY = "the table has been public since 1988"
PRIVATE = ("privacy=none", "rounds=2")


def at(digest: str) -> str:
    return f"/studies/{digest}/decide"


def waiting(world: Any) -> str:
    found: str = world.examples["digest"]
    return found


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def standing(world: Any, digest: str) -> Standing:
    found: Standing = world.office.study(digest).standing
    return found


def entries(world: Any) -> int:
    count: int = world.office.books().entries
    return count


def elsewhere(client: Any, digest: str, *officers: Identity, query: str = "") -> str:
    """What 'officer sign' makes, on another machine, of the request that the console gives."""
    answer = client.get(f"{at(digest)}/request.json{query}")
    assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
    return sign(*read_request(answer.text), officers)


def bring(client: Any, world: Any, digest: str, signed: str, code: str | None = None, **more: Any) -> Any:
    """Send signed facts with the account's next code."""
    token = more.pop("csrf", None) or csrf(client, digest)
    form = {"csrf": token, "signed": signed, "code": world.code("officer") if code is None else code}
    return client.post(at(digest), data=form | more, follow_redirects=False)


def csrf(client: Any, digest: str) -> str:
    return str(client.get(at(digest)).text.split('name="csrf" value="', 1)[1].split('"', 1)[0])


def mask_only(world: Any, helpers: Any) -> str:
    """A plan without differential privacy that the site's policy allows."""
    (world.path / "policy.yaml").write_text("allow_mask_only: true\nallow_unprotected: true\n")
    digest: str = world.proposed(helpers.plan_of(*PRIVATE)).digest
    return digest


def test_facts_that_were_signed_elsewhere_approve_the_plan_and_a_reload_sends_nothing(
    world: Any, client_as: ClientAs
) -> None:
    client, digest = client_as("officer"), waiting(world)
    assert standing(world, digest) is Standing.PROPOSED
    answer = bring(client, world, digest, elsewhere(client, digest, world.anna))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{at(digest)}?done=1")
    assert standing(world, digest) is Standing.APPROVED
    assert [(g.domain, g.version, g.blocks) for g in world.office.study(digest).grants] == [("training", 1, 10)]
    assert world.daemon.said == [f"let {digest}"]
    before = entries(world)
    shown = text_of(client.get(answer.headers["location"]))
    assert "Recorded: the plan is approved." in shown and "Signed by anna" in shown
    assert entries(world) == before


def test_the_request_is_what_the_command_line_writes(world: Any, client_as: ClientAs, tmp_path: Path) -> None:
    from wardround.console.commands.site_study import request_command

    digest = waiting(world)
    request_command(world.path, digest, "training", 2, None, False, tmp_path / "request.json")
    query = "?decision=approve&domain=training&attempts=2"
    assert client_as("officer").get(f"{at(digest)}/request.json{query}").text == (tmp_path / "request.json").read_text()


def test_the_page_says_what_would_be_signed_and_what_it_costs(world: Any, client_as: ClientAs, helpers: Any) -> None:
    plan = helpers.plan_of("rounds=10", "privacy.noise_multiplier=3.5", title="A second look at chest pain")
    shown = text_of(client_as("officer").get(f"{at(plan.digest)}?attempts=2"))
    event = grant_for(plan, "north").event
    cost = rounded_up(epsilon([event] * 20, plan.privacy.delta))
    assert plan.digest in shown and fingerprint(bytes.fromhex(world.office.ledger_key)) in shown
    assert "Rounds, in all 20 Version of the grant 1" in shown
    assert re.search(
        rf"ε at most {cost} at δ = [\d.]+; for any one patient .* adding or removing .* against everyone", shown
    )


def test_a_wrong_code_records_nothing_and_keeps_what_was_signed(world: Any, client_as: ClientAs) -> None:
    client, digest = client_as("officer"), waiting(world)
    signed, before = elsewhere(client, digest, world.anna), entries(world)
    right = world.code("officer")
    for wrong in ("000000", "", "12345678901", right[:-1] + ("1" if right[-1] == "0" else "0")):
        answer = bring(client, world, digest, signed, wrong)
        assert answer.status_code == 403 and "Nothing was recorded." in answer.text
        assert '"signature"' in unescape(answer.text), "nothing is lost"
    assert (entries(world), world.daemon.said) == (before, [])
    assert bring(client, world, digest, signed).status_code == 303, "the same facts with the right code"


def test_a_code_is_taken_once_even_by_two_decisions_at_the_same_time(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    client, digest = client_as("officer"), waiting(world)
    signed, code = elsewhere(client, digest, world.anna), world.code("officer")
    assert bring(client, world, digest, signed, code).status_code == 303
    before = entries(world)
    again = bring(client, world, digest, signed, code)
    assert (again.status_code, entries(world)) == (403, before), "a double click"
    revoking = elsewhere(client, digest, world.anna, query="?decision=revoke")
    assert bring(client, world, digest, revoking, code).status_code == 403
    assert standing(world, digest) is Standing.APPROVED
    twice = bring(client, world, digest, signed)
    assert twice.status_code == 409 and "version 1 of the grant does not follow" in text_of(twice)
    assert entries(world) == before


def test_codes_cannot_be_tried_at_leisure(world: Any, client_as: ClientAs) -> None:
    client, digest = client_as("officer"), waiting(world)
    signed = elsewhere(client, digest, world.anna)
    statuses = [bring(client, world, digest, signed, "000000").status_code for _ in range(FREE_ATTEMPTS)]
    assert statuses == [403] * FREE_ATTEMPTS
    waits = bring(client, world, digest, signed, world.code("officer")[::-1])
    assert waits.status_code in (403, 429)
    locked = bring(client, world, digest, signed, "000000")
    assert locked.status_code == 429 and int(locked.headers["retry-after"]) > 0
    assert standing(world, digest) is Standing.PROPOSED


def test_a_decision_without_the_sessions_token_or_from_another_origin_is_refused(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    client, digest = client_as("officer"), waiting(world)
    signed, before = elsewhere(client, digest, world.anna), entries(world)
    other = helpers.csrf(client_as("it"))
    for forged in ("0" * 64, other):
        assert bring(client, world, digest, signed, csrf=forged).status_code == 403
    form = {"csrf": csrf(client, digest), "signed": signed}
    for headers in (
        {"origin": "https://evil.example.org", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example.org"},
    ):
        given = form | {"code": world.code("officer")}
        assert client.post(at(digest), data=given, headers=headers).status_code == 403
        assert client.post(f"{at(digest)}/refuse", data=given | {"reason": "x"}, headers=headers).status_code == 403
    assert (entries(world), world.daemon.said) == (before, [])


@pytest.mark.parametrize("role", ["it", "auditor"])
def test_only_an_officers_account_decides(world: Any, client_as: ClientAs, role: str) -> None:
    client, digest = client_as(role), waiting(world)
    signed = elsewhere(client_as("officer"), digest, world.anna)
    token = client.get("/").text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
    for path in ("", "/request.json"):
        assert client.get(at(digest) + path).status_code == 403
    for path in ("", "/refuse", "/waiver", "/half", "/request.json"):
        form = {"csrf": token, "signed": signed, "code": world.code(role), "reason": WHY}
        assert client.post(at(digest) + path, data=form).status_code == 403
    assert standing(world, digest) is Standing.PROPOSED


def test_facts_about_another_plan_are_refused_though_their_signatures_are_right(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    client, digest = client_as("officer"), waiting(world)
    other = world.proposed(helpers.plan_of("rounds=4", "privacy.noise_multiplier=2.9"))
    signed, before = elsewhere(client, other.digest, world.anna), entries(world)
    answer = bring(client, world, digest, signed)
    assert answer.status_code == 409 and "about another plan" in text_of(answer)
    lying = json.loads(signed) | {"plan": digest}
    answer = bring(client, world, digest, json.dumps(lying))
    assert answer.status_code == 409 and "about another plan" in text_of(answer)
    assert (entries(world), standing(world, other.digest)) == (before, Standing.PROPOSED)
    assert bring(client, world, other.digest, signed).status_code == 303, "on its own page they are taken"


def test_facts_of_another_site_are_refused(world: Any, new_world: Any, client_as: ClientAs) -> None:
    client, digest = client_as("officer"), waiting(world)
    request, plan = read_request(client.get(f"{at(digest)}/request.json").text)
    for elsewhere_ in (
        request.model_copy(update={"ledger": new_world.office.ledger_key}),
        request.model_copy(update={"site": "south"}),
    ):
        answer = bring(client, world, digest, sign(elsewhere_, plan, [world.anna]))
        assert answer.status_code == 409 and "another site" in text_of(answer)
    assert standing(world, digest) is Standing.PROPOSED


@pytest.mark.parametrize(
    "fault", ["a stranger", "a stranger under her name", "changed afterwards", "nobody", "junk", "more"]
)
def test_what_no_officer_of_this_ledger_signed_is_refused_before_a_code_is_spent(
    world: Any, client_as: ClientAs, fault: str
) -> None:
    client, digest = client_as("officer"), waiting(world)
    good = elsewhere(client, digest, world.anna)
    request, plan = read_request(client.get(f"{at(digest)}/request.json").text)
    more = request.facts[0].model_copy(update={"blocks": 50})
    signed = {
        "a stranger": lambda: sign(request, plan, [Identity.generate("mallory")]),
        "a stranger under her name": lambda: sign(request, plan, [Identity.generate("anna")]),
        "changed afterwards": lambda: good.replace('"blocks": 10', '"blocks": 30'),
        "nobody": lambda: json.dumps(json.loads(good) | {"facts": [json.loads(good)["facts"][0] | {"approvals": []}]}),
        "junk": lambda: "<script>alert(1)</script>",
        "more": lambda: sign(request.model_copy(update={"facts": (more,)}), plan, [world.anna]),
    }[fault]()
    before, code = entries(world), world.code("officer")
    answer = bring(client, world, digest, signed, code)
    assert answer.status_code == 409 and "<script>alert" not in answer.text
    assert (entries(world), world.daemon.said) == (before, [])
    assert bring(client, world, digest, good, code).status_code == 303, "the code was not spent"


def test_a_silent_daemon_is_said_with_its_hint_and_nothing_is_lost(world: Any, client_as: ClientAs) -> None:
    client, digest = client_as("officer"), waiting(world)
    signed, code = elsewhere(client, digest, world.anna), world.code("officer")
    world.control.stop()
    (world.path / "control.sock").unlink(missing_ok=True)
    assert "Nothing can be decided now" in client.get(at(digest)).text
    answer = bring(client, world, digest, signed, code)
    assert answer.status_code == 503 and "wardround site start" in text_of(answer)
    assert '"signature"' in unescape(answer.text)
    world.serve_control()
    assert bring(client, world, digest, signed, code).status_code == 303, "not even the code was spent"


def test_an_officer_refuses_with_a_reason_and_a_code(world: Any, client_as: ClientAs) -> None:
    client, digest = client_as("officer"), waiting(world)
    token, before = csrf(client, digest), entries(world)

    def say(reason: str, code: str) -> Any:
        form = {"csrf": token, "reason": reason, "code": code}
        return client.post(f"{at(digest)}/refuse", data=form, follow_redirects=False)

    assert say("  ", world.code("officer")).status_code == 409
    assert say("no ethics vote", "000000").status_code == 403
    assert entries(world) == before
    assert say("no ethics vote", world.code("officer")).status_code == 303
    assert standing(world, digest) is Standing.REFUSED and world.daemon.said == [f"interrupt {digest}"]
    assert [f.reason for f in world.folder.ledger().facts() if isinstance(f, Refuse)][-1].endswith("no ethics vote")
    assert "Recorded: the plan is refused." in client.get(f"{at(digest)}?done=1").text


def test_a_revocation_stops_the_plan_at_its_next_step(world: Any, client_as: ClientAs, helpers: Any) -> None:
    client, digest = client_as("officer"), helpers.plan_of().digest
    shown = text_of(client.get(at(digest)))
    assert "Revocation: the plan may do nothing more" in shown and "Revoke the approval" in shown
    answer = bring(client, world, digest, elsewhere(client, digest, world.ben, query="?decision=revoke"))
    assert answer.status_code == 303 and standing(world, digest) is Standing.REVOKED
    assert set(world.daemon.said) == {f"interrupt {digest}"}
    assert {grant.blocks for grant in world.office.study(digest).grants} == {0}


def test_two_officers_waive_one_after_the_other_and_nothing_is_kept_in_between(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    client, digest = client_as("officer"), mask_only(world, helpers)
    assert client.get(f"{at(digest)}/request.json").status_code == 409, "without a reason there is nothing to sign"
    terms = {"csrf": csrf(client, digest), "decision": "approve", "domain": "training", "attempts": "1", "reason": WHY}
    shown = text_of(client.post(f"{at(digest)}/waiver", data=terms))
    assert WHY in shown and "Waiver: no privacy guarantee, sums only" in shown and "first of two officers" in shown
    asked, plan = read_request(client.post(f"{at(digest)}/request.json", data=terms).text)
    half = sign(asked, plan, [world.anna])
    assert [len(fact.approvals) for fact in read_request(half)[0].facts] == [1, 1]
    size, before = (world.path / "console.sqlite").read_bytes(), entries(world)

    as_facts = json.dumps({
        "format": "wardround/signed-facts/1", "site": "north", "ledger": asked.ledger, "plan": digest,
        "facts": json.loads(half)["facts"],
    })  # fmt: skip
    file = bring(client, world, digest, as_facts, "000000")
    assert file.status_code == 403 and "content-disposition" not in file.headers
    file = bring(client, world, digest, as_facts)
    assert file.status_code == 200 and file.headers["content-disposition"].startswith("attachment")
    assert read_request(file.text) == read_request(half), "the file of the browser's way is that of the other"
    assert entries(world) == before and WHY.encode() not in (world.path / "console.sqlite").read_bytes() + size

    upload = {"half_file": ("half.json", half, "application/json")}
    second = client.post(f"{at(digest)}/half", data={"csrf": terms["csrf"]}, files=upload)
    assert second.status_code == 200 and WHY in text_of(second) and "Signed already by anna" in text_of(second)
    answer = bring(client, world, digest, sign(*read_request(half), [world.ben]))
    assert answer.status_code == 303 and standing(world, digest) is Standing.APPROVED
    (fact,) = [fact for fact in world.folder.ledger().facts() if isinstance(fact, Waive)]
    assert (fact.reason, [one.officer for one in fact.approvals]) == (WHY, ["anna", "ben"])


@pytest.mark.parametrize("fault", ["another plan", "another ledger", "a stranger", "changed", "junk", "nothing"])
def test_a_half_signed_file_that_is_wrong_is_not_shown_to_the_second_officer(
    world: Any, new_world: Any, client_as: ClientAs, helpers: Any, fault: str
) -> None:
    client, digest = client_as("officer"), mask_only(world, helpers)
    other = world.proposed(helpers.plan_of("privacy=none", "rounds=3")).digest
    terms = {"csrf": csrf(client, digest), "decision": "approve", "reason": WHY}

    def request(of: str) -> Any:
        return read_request(client.post(f"{at(of)}/request.json", data=terms).text)

    asked, plan = request(digest)
    file = {
        "another plan": lambda: sign(*request(other), [world.anna]),
        "another ledger": lambda: sign(
            asked.model_copy(update={"ledger": new_world.office.ledger_key}), plan, [world.anna]
        ),
        "a stranger": lambda: sign(asked, plan, [Identity.generate("anna")]),
        "changed": lambda: sign(asked, plan, [world.anna]).replace(WHY, "a better reason than before"),
        "junk": lambda: "\x00\x01",
        "nothing": lambda: "",
    }[fault]()
    upload = {"half_file": ("half.json", file, "application/json")}
    answer = client.post(f"{at(digest)}/half", data={"csrf": terms["csrf"]}, files=upload)
    assert answer.status_code == 409 and "Signed already" not in answer.text


def test_a_hostile_title_is_text_on_the_page_and_in_its_data(world: Any, client_as: ClientAs, helpers: Any) -> None:
    hostile = "</script><script>alert(1)</script>" + helpers.HOSTILE
    digest = world.proposed(helpers.plan_of("rounds=2", "privacy.noise_multiplier=2.9", title=hostile)).digest
    text = client_as("officer").get(at(digest)).text
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    data = text.split('<script type="application/json" id="request">', 1)[1].split("</script>", 1)[0]
    assert json.loads(data)["plan"]["title"] == hostile and "<" not in data


def test_nothing_that_was_typed_is_in_a_log_or_an_address(
    world: Any, client_as: ClientAs, helpers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client, digest = client_as("officer"), mask_only(world, helpers)
    terms = {"csrf": csrf(client, digest), "decision": "approve", "domain": "training", "attempts": "1", "reason": WHY}
    code, signed = world.code("officer"), elsewhere(client, waiting(world), world.anna)
    with caplog.at_level(logging.INFO):
        client.post(f"{at(digest)}/waiver", data=terms)
        client.post(f"{at(digest)}/refuse", data=terms | {"code": "918273"})
        answer = bring(client, world, waiting(world), signed, code)
    said = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("wardround"))
    assert "POST /studies/{digest}/decide 303" in said
    for secret in (WHY, code, "918273", json.loads(signed)["facts"][0]["approvals"][0]["signature"], digest):
        assert secret not in said
    assert WHY not in answer.headers["location"] and code not in answer.headers["location"]


@pytest.mark.parametrize("path", ["/studies/../decide", "/studies/%2e%2e%2f/decide", f"/studies/{'0' * 64}/decide"])
def test_a_plan_that_is_not_here_has_no_page(client_as: ClientAs, path: str) -> None:
    assert client_as("officer").get(path).status_code == 404


@pytest.mark.parametrize("query", ["attempts=0", "attempts=99", "attempts=²", "decision=spend", "attempts=-1"])
def test_a_choice_that_is_none_is_refused(world: Any, client_as: ClientAs, query: str) -> None:
    assert client_as("officer").get(f"{at(waiting(world))}?{query}").status_code == 400


def test_a_plan_beyond_the_policy_cannot_be_signed_and_the_page_says_why(world: Any, client_as: ClientAs) -> None:
    (world.path / "policy.yaml").write_text("rounds_at_most: 9\n")
    answer = client_as("officer").get(at(waiting(world)))
    assert answer.status_code == 200 and "this plan cannot run here" in answer.text and 'id="signed"' not in answer.text


def test_an_officer_opens_a_domain_and_its_numbers_are_those_of_the_accountant(new_world: Any, helpers: Any) -> None:
    with helpers.new_client(new_world.app()) as client:
        helpers.log_in(client, new_world, "officer")
        query = "?domain=training&epsilon_cap=4,5&patients=900"
        shown = text_of(client.get(f"/domains/open{query}"))
        order = fixed_order(4.5, 1e-4)
        assert "ε at most 4.5 at δ = 0.0001" in shown and f"Order of the filter {order}" in shown
        request = client.get(f"/domains/open/request.json{query}").text
        form = {"csrf": helpers.csrf(client), "signed": sign(*read_request(request), [new_world.anna])}
        assert client.post("/domains/open", data=form | {"code": "000000"}).status_code == 403
        assert new_world.office.books().budgets == ()
        answer = client.post("/domains/open", data=form | {"code": new_world.code("officer")}, follow_redirects=False)
        assert answer.status_code == 303
        (fact,) = [fact for fact in new_world.folder.ledger().facts() if isinstance(fact, OpenDomain)]
        assert (fact.domain, fact.epsilon_cap, fact.delta, fact.order) == ("training", 4.5, 1e-4, order)
        assert "Recorded: the data domain is open." in client.get(answer.headers["location"]).text
        assert "open already" in client.get(f"/domains/open{query}").text
        again = client.post("/domains/open", data=form | {"code": new_world.code("officer")})
        assert again.status_code == 409 and "open already" in text_of(again)


def test_a_closed_domain_is_not_offered(world: Any, client_as: ClientAs) -> None:
    world.opened("children")
    page = at(waiting(world))
    assert 'value="children"' in client_as("officer").get(page).text
    world.office.record([world.signed(Close(domain="children", reason="the ward was closed"))])
    assert 'value="children"' not in client_as("officer").get(page).text


@pytest.mark.parametrize(
    "wish",
    [
        "domain=x&epsilon_cap=nan&patients=5",
        "domain=x&epsilon_cap=-1&patients=5",
        "domain=x&epsilon_cap=4&patients=0",
        "domain=x&epsilon_cap=a&patients=b",
        "domain=&epsilon_cap=4&patients=9",
        "domain=training&epsilon_cap=4&patients=9",
    ],
)
def test_a_budget_that_is_none_is_not_signed(client_as: ClientAs, wish: str) -> None:
    client = client_as("officer")
    answer = client.get(f"/domains/open?{wish}")
    assert answer.status_code == 200 and 'id="signed"' not in answer.text
    assert client.get(f"/domains/open/request.json?{wish}").status_code == 409


@pytest.mark.parametrize("role", ["officer", "it"])
def test_the_site_is_paused_with_a_reason_and_resumed_with_a_code(world: Any, client_as: ClientAs, role: str) -> None:
    client = client_as(role)
    token = client.get("/pause").text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
    assert client.post("/pause", data={"csrf": token, "reason": " "}).status_code == 409
    assert client.post("/pause", data={"csrf": token, "reason": "a disk fails"}).status_code == 200
    assert world.daemon.now.state == "paused" and "a disk fails" in client.get("/pause").text
    for code in ("000000", ""):
        assert client.post("/pause/resume", data={"csrf": token, "code": code}).status_code == 403
    assert world.daemon.now.state == "paused"
    assert client.post("/pause/resume", data={"csrf": token, "code": world.code(role)}).status_code == 200
    assert world.daemon.said == ["pause a disk fails", "resume"]


def test_a_decision_is_made_by_the_daemon_and_by_nobody_else(
    world: Any, client_as: ClientAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console never writes the ledger: where the daemon's office takes nothing, nothing is written."""
    client, digest = client_as("officer"), waiting(world)
    signed, before = elsewhere(client, digest, world.anna), entries(world)
    monkeypatch.setattr(Office, "record", lambda self, contents: None)
    assert bring(client, world, digest, signed).status_code == 303
    assert entries(world) == before


def suspend(world: Any) -> None:
    """Anna's key is stolen, and ben says so."""
    world.office.record([world.signed(Suspend(key=world.anna.public.key.hex(), reason="stolen"), world.ben)])


def domain_again(client: Any, world: Any, domain: str, officer: Identity) -> Any:
    """Sign the budget of a domain again, through the page."""
    page = client.get(f"/domains/open?domain={domain}").text
    request = client.get(f"/domains/open/request.json?domain={domain}").text
    form = {
        "csrf": page.split('name="csrf" value="', 1)[1].split('"', 1)[0],
        "signed": sign(*read_request(request), [officer]),
        "code": world.code("officer"),
    }
    return client.post("/domains/open", data=form, follow_redirects=False)


def test_a_study_that_rests_on_a_suspended_key_is_signed_again_domain_first_and_then_runs(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    client, digest = client_as("officer"), helpers.plan_of().digest
    suspend(world)
    assert standing(world, digest) is Standing.SUSPENDED
    shown = client.get(at(digest))
    assert "rests on a suspended key, so the plan has stopped" in text_of(shown) and 'id="signed"' not in shown.text
    assert "budget of the data domain 'training' rests on a suspended key" in text_of(shown)
    assert 'href="/domains/open?domain=training"' in shown.text
    with pytest.raises(WardroundError, match="stolen"):
        world.ran(helpers.plan_of(), 1, first=8)
    for domain in ("training", "consortium"):
        assert domain_again(client, world, domain, world.ben).status_code == 303
    assert standing(world, digest) is Standing.SUSPENDED, "the grant itself still rests on her key"
    shown = client.get(at(digest))
    assert "Approve the plan" in shown.text and "Version of the grant 2" in text_of(shown)
    assert "Recorded" not in client.get(f"{at(digest)}?done=1").text, "nothing was decided yet"
    # Its consortium's curve was granted by the key that is gone, too: this plan is of mode local and does not need it.
    assert bring(client, world, digest, elsewhere(client, digest, world.ben)).status_code == 303
    assert world.office.study(digest).grants[-1].version == 2
    world.ran(helpers.plan_of(), 1, first=8)


def test_what_a_suspended_key_has_signed_is_refused_and_the_page_says_which(world: Any, client_as: ClientAs) -> None:
    """The script in the browser brings its signature through the same form as what was pasted."""
    client, digest = client_as("officer"), waiting(world)
    signed = elsewhere(client, digest, world.anna)
    suspend(world)
    before = entries(world)
    answer = bring(client, world, digest, signed)
    assert answer.status_code == 409 and entries(world) == before
    assert "signed with a key of 'anna' that was suspended (stolen)" in text_of(answer)
    assert "now these may sign: ben" in text_of(answer) and "Nothing was recorded." in answer.text


def test_a_budget_that_rests_on_a_suspended_key_is_signed_again_with_the_same_numbers_only(
    world: Any, client_as: ClientAs
) -> None:
    client = client_as("officer")
    assert "Waits to be signed again" not in text_of(client.get("/domains/open"))
    suspend(world)
    assert 'href="/domains/open?domain=training"' in client.get("/domains/open").text
    shown = text_of(client.get("/domains/open?domain=training"))
    assert "ε at most 8 at δ = 0.0001" in shown and "Sign the budget again" in shown
    same = "/domains/open?domain=training&epsilon_cap=8&patients=900"
    assert "ε at most 8 at δ = 0.0001" in text_of(client.get(same)), "or typed, as on the command line"
    for other in ("epsilon_cap=9&patients=900", "epsilon_cap=8&patients=90000"):
        answer = client.get(f"/domains/open?domain=training&{other}")
        assert "was opened with epsilon at most 8.0 and delta 0.0001" in text_of(answer)
        assert 'id="signed"' not in answer.text
    refused = domain_again(client, world, "training", world.anna)
    assert refused.status_code == 409 and "that was suspended (stolen)" in text_of(refused)
    assert domain_again(client, world, "training", world.ben).status_code == 303
    first, *_, again = [
        f for f in world.folder.ledger().facts() if isinstance(f, OpenDomain) and f.domain == "training"
    ]
    assert (again.epsilon_cap, again.delta, again.order) == (first.epsilon_cap, first.delta, first.order)
    assert [one.officer for one in again.approvals] == ["ben"]


def test_a_revocation_leaves_closed_domains_out_and_says_when_nothing_is_left(
    world: Any, client_as: ClientAs, helpers: Any
) -> None:
    client, digest = client_as("officer"), helpers.plan_of().digest
    world.office.record([world.signed(Close(domain="consortium", reason="the ward was closed"))])
    signed = elsewhere(client, digest, world.anna, query="?decision=revoke")
    assert [fact["domain"] for fact in json.loads(signed)["facts"]] == ["training"]
    assert bring(client, world, digest, signed).status_code == 303
    assert standing(world, digest) is Standing.REVOKED
    world.office.record([world.signed(Close(domain="training", reason="the ward was closed"))])
    shown = client.get(f"{at(digest)}?decision=revoke")
    assert "this plan is over: every data domain" in text_of(shown) and 'id="signed"' not in shown.text
