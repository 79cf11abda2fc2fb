"""Signing in a real browser: the key stays there, and the script signs what the page shows and nothing else."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from wardround.client.governance import CONSORTIUM_DOMAIN, charge_for
from wardround.client.signing import approval_facts, read_request, request_for, sign
from wardround.client.store.keys import fingerprint, write_officer_key
from wardround.protocol.canonical import encode
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Suspend, Waive, approval_message
from wardround.protocol.messages import Standing

pytestmark = pytest.mark.server("chromium")

WORDS = "sünf Wörter, die niemand errät 密"
WHY = "the table has been public since 1988"
DIST = ("privacy=dist", "rounds=3", "privacy.noise_multiplier=2.5")
VALUES: list[Any] = [
    None,
    [True, False, []],
    {"b": 1, "a": 2, "é": 3, "\U0001f600": 4, "\ufb33": 5, "": 6, "a\u0000": 7},
    [0.0, -0.0, 1.0, 0.1, 2.84, 1e-4, 1e-7, 1.5e-300, 1e21, 1e22, 123456789012345680.0, 2**53 - 1, -7, 5e-324],
    'Umlaute äöü, "quotes", \\ / \b\t\n\f\r \u007f \u2028 </script> 医院 \U0001f3e5',
]


def key_files(world: Any, folder: Path) -> dict[str, Path]:
    """Key files of both officers and of a stranger."""
    made = {}
    for officer in (world.anna, world.ben, Identity.generate("mallory")):
        made[officer.site] = folder / f"{officer.site}.key"
        write_officer_key(made[officer.site], officer, WORDS)
    return made


@pytest.fixture
def keys(world: Any, tmp_path: Path) -> dict[str, Path]:
    return key_files(world, tmp_path)


@pytest.fixture(scope="module")
def shown_keys(shown: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those of the hospital that nobody changes."""
    return key_files(shown, tmp_path_factory.mktemp("keys"))


@contextmanager
def window_at(visits: Any, world: Any, path: str, lie: Callable[[str], str] | None = None) -> Iterator[Any]:
    """The officer's window on a page; ``lie`` changes the page on its way, as a lying server would."""
    with visits.page(world, "officer") as window:
        if lie is not None:

            def tampered(route: Any) -> None:
                answer = route.fetch()
                changed = lie(answer.text())
                assert changed != answer.text(), "the lie changed nothing"
                route.fulfill(response=answer, body=changed)

            window.route(f"**{path}", tampered)
        window.goto(path)
        yield window


def sign_with(window: Any, key: Path, words: str = WORDS) -> str:
    """Choose the key file, type the passphrase, press; what the page says then."""
    window.set_input_files("#key-file", key)
    window.fill("#passphrase", words)
    window.click("[data-sign-now]")
    window.wait_for_selector("[data-sign-now]:not([disabled])")
    said: str = window.inner_text("[data-sign-says]")
    return said


def press(window: Any, world: Any, code: str | None = None) -> None:
    window.fill("#code", world.code("officer") if code is None else code)
    window.click("main form[enctype] button[type=submit] >> nth=-1")
    window.wait_for_load_state()


def at(digest: str) -> str:
    return f"/studies/{digest}/decide"


def standing(world: Any, digest: str) -> Standing:
    found: Standing = world.office.study(digest).standing
    return found


def imported(window: Any, module: str, call: str, *values: Any) -> Any:
    """What an exported function of one of our modules returns in the browser."""
    script = (
        f"async (values) => {{ const module = await import('/static/{module}'); return ({call})(module, ...values) }}"
    )
    return window.evaluate(script, list(values))


def test_an_officer_approves_with_her_key_file_and_neither_it_nor_the_passphrase_leaves_the_browser(
    world: Any, visits: Any, keys: Any
) -> None:
    digest, sent = world.examples["digest"], []
    with window_at(visits, world, at(digest)) as window:
        window.on("request", lambda one: sent.append((one.url, str(one.headers), one.post_data_buffer or b"")))
        assert "Signed. Nothing is decided yet" in sign_with(window, keys["anna"])
        assert window.input_value("#passphrase") == "" and window.evaluate("document.activeElement.id") == "code"
        assert standing(world, digest) is Standing.PROPOSED
        assert [url for url, _, _ in sent if "/static/" not in url] == []
        press(window, world)
        assert "Recorded: the plan is approved." in window.inner_text("main")
        window.reload()
        assert window.faults == []
    assert standing(world, digest) is Standing.APPROVED
    assert [(g.domain, g.blocks) for g in world.office.study(digest).grants] == [("training", 10)]
    whole = b"".join(url.encode() + headers.encode() + body for url, headers, body in sent)
    assert world.anna.public.key.hex().encode() in whole, "the public key is in what was sent, so this looks at it"
    seed, file = world.anna.private.private_bytes_raw(), json.loads(keys["anna"].read_text())
    for secret in (seed, seed.hex().encode(), base64.b64encode(seed), base64.urlsafe_b64encode(seed).rstrip(b"=")):
        assert secret not in whole
    for text in (WORDS, file["sealed"], file["salt"], file["nonce"]):
        assert text.encode() not in whole
    assert "s%C3%BCnf" not in whole.decode("latin-1")


@pytest.mark.parametrize(
    ("which", "words", "said"),
    [
        ("anna", "another passphrase", "The key cannot be opened"),
        ("anna", "", "The key cannot be opened"),
        ("card", WORDS, "no officer's key file"),
        ("weak", WORDS, "no officer's key file"),
        ("other name", WORDS, "The key cannot be opened"),
        ("junk", WORDS, "no officer's key file"),
    ],
)
def test_a_wrong_passphrase_or_file_signs_nothing(
    shown: Any, visits: Any, shown_keys: Any, tmp_path: Path, which: str, words: str, said: str
) -> None:
    file = tmp_path / "chosen.key"
    content = json.loads(shown_keys["anna"].read_text())
    file.write_text({
        "anna": lambda: json.dumps(content),
        "card": lambda: json.dumps({"format": "wardround/officer/1", "officer": "anna", "key": content["key"]}),
        "weak": lambda: json.dumps(content | {"iterations": 1000}),
        "other name": lambda: json.dumps(content | {"officer": "ben"}),
        "junk": lambda: "\x00 no key",
    }[which]())  # fmt: skip
    with window_at(visits, shown, at(shown.examples["digest"])) as window:
        assert said in sign_with(window, file, words)
        assert window.input_value("#signed") == "" and window.input_value("#passphrase") == ""
        assert "Signed." in sign_with(window, shown_keys["anna"]), "the right ones, afterwards"


def test_a_key_of_somebody_whom_the_ledger_does_not_name_decides_nothing(world: Any, visits: Any, keys: Any) -> None:
    digest = world.examples["digest"]
    with window_at(visits, world, at(digest)) as window:
        assert "Signed." in sign_with(window, keys["mallory"])
        press(window, world)
        text = window.inner_text("main")
        assert "'mallory' with this key is no officer of this site" in text and "Nothing was recorded." in text
    assert standing(world, digest) is Standing.PROPOSED


def test_a_wrong_code_keeps_what_was_signed_in_the_browser(world: Any, visits: Any, keys: Any) -> None:
    digest = world.examples["digest"]
    with window_at(visits, world, at(digest)) as window:
        sign_with(window, keys["anna"])
        press(window, world, "000000")
        assert "The code is wrong" in window.inner_text("main") and '"signature"' in window.input_value("#signed")
        press(window, world)
    assert standing(world, digest) is Standing.APPROVED


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    return lambda page: re.sub(pattern, by, page, count=1, flags=re.S)


LIES = {
    "more rounds in the request": replaced(r'"blocks":10', '"blocks":30'),
    "more rounds on the page": replaced(r'data-part="blocks">10<', 'data-part="blocks">30<'),
    "fewer rounds on the page, hidden elsewhere": replaced(r'"blocks":10', '"blocks": 10.5'),
    "another domain": replaced(r'"domain":"training"', '"domain":"children"'),
    "another version": replaced(r'"version":1([,}])', r'"version":2\1'),
    "a round that costs less": replaced(r'("facts":.*?"noise_multiplier":)3.5', r"\g<1>35"),
    "another ledger": replaced(r'"ledger":"..', '"ledger":"00'),
    "another site": replaced(r'"site":"north","ledger"', '"site":"south","ledger"'),
    "another plan under this digest": replaced('"title":"A second look', '"title":"A third look'),
    "a cheaper plan and its round": lambda page: page.replace('"noise_multiplier":3.5', '"noise_multiplier":35'),
    "a digest that is not the plan's": replaced(r'(data-shown="digest">)..', r"\g<1>00"),
    "a fact about another plan": replaced(r'("facts":.*?"plan":")..', r"\g<1>00"),
    "a fact that the page does not show": replaced(
        r'"facts":\[(\{.*?\})\]\}(?=</script>)',
        r'"facts":[\1,{"approvals":[],"domain":"training","kind":"waive","plan":"","reason":""}]}',
    ),
    "a fact with a field more": replaced(r'"blocks":10', '"blocks":10,"delta":1'),
    "a revocation that is called an approval": replaced(r'"blocks":10', '"blocks":0'),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_gets_no_signature(shown: Any, visits: Any, shown_keys: Any, lie: str) -> None:
    with window_at(visits, shown, at(shown.examples["digest"]), LIES[lie]) as window:
        assert "NOT SIGNED" in sign_with(window, shown_keys["anna"])
        assert window.input_value("#signed") == ""


def test_the_bytes_in_the_browser_are_those_of_python(shown: Any, visits: Any, helpers: Any) -> None:
    plan, ledger = helpers.plan_of(title='Hôpital "Nord" 医院 \u2028 \U0001f3e5'), "ab" * 32
    facts = [
        *approval_facts(plan, "north", ["training", "Kinder ä 医"], 20, {}),
        *approval_facts(helpers.plan_of(*DIST), "north", [CONSORTIUM_DOMAIN], 3, {CONSORTIUM_DOMAIN: 4}),
        Waive(domain="training", plan=plan.digest, reason="Öffentlich seit 1988 \U0001f3e5 \\"),
    ]
    with visits.page(shown, "officer") as window:
        window.goto("/")
        for value in VALUES:
            given = json.dumps(value)
            made = imported(window, "canonical.js", "(m, text) => m.canonical(JSON.parse(text))", given)
            assert made.encode() == encode(value), value
        for fact in facts:
            given = json.dumps({"fact": fact.model_dump(mode="json", exclude={"approvals"}), "ledger": ledger})
            made = imported(window, "canonical.js", "(m, text) => m.canonical(JSON.parse(text))", given)
            assert b"wardround/approval/1\0" + made.encode() == approval_message(ledger, fact)
        given = [plan.canonical.decode(), json.dumps(plan.model_dump(mode="json"))]
        call = "(m, text) => m.labelled('wardround/plan/1', m.bytes(m.canonical(JSON.parse(text))))"
        assert [imported(window, "canonical.js", call, text) for text in given] == [plan.digest] * 2
        refused = "async (m) => { try { return m.canonical('\\ud800') } catch { return 'refused' } }"
        assert imported(window, "canonical.js", refused) == "refused"


def test_a_round_of_each_kind_is_worked_out_from_the_plan_as_python_does(world: Any, visits: Any, helpers: Any) -> None:
    call = "(m, request, shown) => m.check(JSON.parse(request), shown).then(() => 'right', (error) => error.words)"
    ledger = world.office.ledger_key
    with visits.page(world, "officer") as window:
        window.goto("/")
        for plan, names in (
            (helpers.plan_of(), ["training"]),
            (helpers.plan_of(*DIST), ["training", CONSORTIUM_DOMAIN]),
            (helpers.plan_of("privacy=none", "rounds=2"), ["training"]),
        ):
            facts = approval_facts(plan, "north", names, plan.rounds, {}, WHY if plan.privacy.delta is None else None)
            parts = [
                ["waive", {"domain": fact.domain, "reason": WHY}]
                if isinstance(fact, Waive)
                else ["grant", {"domain": fact.domain, "blocks": str(plan.rounds), "version": "1"}]
                for fact in facts
            ]
            seen = {
                "site": "north",
                "ledger": fingerprint(bytes.fromhex(ledger)),
                "digest": plan.digest,
                "facts": parts,
            }
            request = request_for(plan, "north", ledger, facts)
            assert imported(window, "sign.js", call, request, seen) == "right"
            for fact in facts:
                if not isinstance(fact, Waive) and fact.event.kind == "poisson_gaussian":
                    assert fact.event == charge_for(plan, "north", fact.domain)
                    other = request.replace(
                        f'"noise_multiplier": {fact.event.noise_multiplier}', '"noise_multiplier": 9.0'
                    )
                    assert imported(window, "sign.js", call, other, seen) == "differs"


def test_two_officers_waive_in_the_browser_and_one_cannot_be_both(
    world: Any, visits: Any, keys: Any, helpers: Any, tmp_path: Path
) -> None:
    (world.path / "policy.yaml").write_text("allow_mask_only: true\nallow_unprotected: true\n")
    digest = world.proposed(helpers.plan_of("privacy=none", "rounds=2")).digest
    with window_at(visits, world, at(digest)) as window:
        window.fill("#reason", WHY)
        window.click("text=Show what I would sign")
        assert "Signed. Nothing is decided yet" in sign_with(window, keys["anna"])
        with window.expect_download() as coming:
            press(window, world)
        coming.value.save_as(tmp_path / "half.json")
    assert standing(world, digest) is Standing.PROPOSED
    asked, plan = read_request((tmp_path / "half.json").read_text())
    assert [{one.officer for one in fact.approvals} for fact in asked.facts] == [{"anna"}, {"anna"}]
    with window_at(visits, world, at(digest)) as window:
        window.click("summary")
        window.set_input_files("#half-file", tmp_path / "half.json")
        window.click("text=Show what it says")
        assert WHY in window.inner_text("main") and "anna" in window.inner_text("main")
        assert "This officer has signed already" in sign_with(window, keys["anna"])
        assert window.input_value("#signed") == ""
        assert "Signed." in sign_with(window, keys["ben"])
        press(window, world)
        assert "Recorded: the plan is approved." in window.inner_text("main")
        assert "anna, ben" in window.inner_text("main")
    assert standing(world, digest) is Standing.APPROVED
    assert sign(asked, plan, [world.ben]), "or the same elsewhere"


def test_a_revocation_and_a_domain_are_signed_in_the_browser(world: Any, visits: Any, keys: Any, helpers: Any) -> None:
    digest = helpers.plan_of().digest
    with window_at(visits, world, at(digest)) as window:
        sign_with(window, keys["ben"])
        press(window, world)
        assert "Recorded: the approval is taken back." in window.inner_text("main")
    assert standing(world, digest) is Standing.REVOKED and f"interrupt {digest}" in world.daemon.said
    with window_at(visits, world, "/domains/open?domain=children&epsilon_cap=0.5&patients=1200000") as window:
        assert "Signed." in sign_with(window, keys["anna"])
        press(window, world)
        assert "Recorded: the data domain is open." in window.inner_text("main")
    assert "children" in {line.domain for line in world.office.books().budgets}


def test_a_lying_server_gets_no_signature_under_another_budget(shown: Any, visits: Any, shown_keys: Any) -> None:
    path = "/domains/open?domain=children&epsilon_cap=4&patients=900"
    with window_at(visits, shown, path, replaced(r'"epsilon_cap":4.0', '"epsilon_cap":400.0')) as window:
        assert "NOT SIGNED" in sign_with(window, shown_keys["anna"])


def test_a_browser_without_the_signature_says_so_and_offers_the_other_way(shown: Any, visits: Any) -> None:
    with visits.page(shown, "officer") as window:
        window.add_init_script(
            "crypto.subtle.generateKey = async () => { throw new DOMException('', 'NotSupportedError') }"
        )
        window.goto(at(shown.examples["digest"]))
        window.wait_for_selector("[data-sign-unable]:not([hidden])")
        assert window.is_hidden("#passphrase")
        assert window.is_visible("text=Download the request")


def test_a_second_factor_field_and_both_ways_are_reached_by_keyboard(
    shown: Any, visits: Any, shown_keys: Any, axe: Any
) -> None:
    with window_at(visits, shown, at(shown.examples["digest"])) as window:
        window.set_input_files("#key-file", shown_keys["anna"])
        window.focus("#passphrase")
        window.keyboard.type("wrong words here")
        window.keyboard.press("Enter")
        window.wait_for_selector("[data-sign-says] >> text=cannot be opened")
        assert axe(window) == []
        press(window, shown)
        assert window.faults == [] or all("409" in fault for fault in window.faults)
        assert "there is nothing to read" in window.inner_text("[role=alert]") and axe(window) == []


def test_a_suspended_key_signs_in_the_browser_and_nothing_is_recorded(world: Any, visits: Any, keys: Any) -> None:
    digest = world.examples["digest"]
    world.office.record([world.signed(Suspend(key=world.anna.public.key.hex(), reason="stolen"), world.ben)])
    for domain in ("training", "consortium"):
        with window_at(visits, world, f"/domains/open?domain={domain}") as window:
            assert "Signed." in sign_with(window, keys["ben"])
            press(window, world)
            assert "Recorded: the data domain is open." in window.inner_text("main")
    with window_at(visits, world, at(digest)) as window:
        assert "Signed." in sign_with(window, keys["anna"])
        press(window, world)
        assert "that was suspended (stolen)" in window.inner_text("[role=alert]")
    assert standing(world, digest) is Standing.PROPOSED
    with window_at(visits, world, at(digest)) as window:
        assert "Signed." in sign_with(window, keys["ben"])
        press(window, world)
        assert "Recorded: the plan is approved." in window.inner_text("main")
