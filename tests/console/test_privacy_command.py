"""``wardround privacy``: numbers with all their terms, JSON that parses, and two lines where nothing can be said."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wardround.client.governance import open_domain
from wardround.client.store.folder import SiteFolder
from wardround.privacy.accounting import epsilon
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Grant, Reserve, approve

TERMS = ("delta 0.0001", "one patient of one site", "add or remove one patient", "whoever colludes")


def privacy(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wardround.console.cli", "privacy", *words], capture_output=True, text=True, timeout=120
    )


def test_the_calculator_says_what_the_accountant_says() -> None:
    event = PoissonGaussian(noise_multiplier=2.84, sampling_probability=0.25, steps=75, declared_patients=1)
    done = privacy("epsilon", "--event", "2.84,0.25,75", "--delta", "1e-4", "--json")
    data = json.loads(done.stdout)
    assert data["epsilon"] == pytest.approx(epsilon([event], 1e-4)) and data["epsilon_shown"] == "2.99"
    assert data["delta"] == 1e-4 and data["unit"] and data["adjacency"] and data["against"]
    text = " ".join(privacy("epsilon", "--event", "2.84,0.25,75", "--delta", "1e-4").stdout.split())
    assert "2.99" in text and all(term in text for term in TERMS)


def test_the_plan_shows_every_hospital_and_the_terms_of_every_epsilon() -> None:
    text = " ".join(privacy("plan").stdout.split())
    assert all(site in text for site in ("cleveland", "hungarian", "switzerland", "va"))
    assert "22 %" in text and all(term in text for term in TERMS)


EVENT = PoissonGaussian(noise_multiplier=2.84, sampling_probability=0.25, steps=5, declared_patients=200)


def site(place: Path, name: str, blocks: int) -> Path:
    """The ledger file of a hospital whose training patients have a cap of 8 and ran that many rounds."""
    officer = Identity.generate("anna")
    folder = SiteFolder.create(place / name, name, [officer.public])
    ledger, key = folder.ledger(), folder.identity().public.key.hex()
    ledger.record(approve(open_domain("training", 8.0, 1e-4), key, officer))
    ledger.record(approve(Grant(domain="training", plan="earlier", event=EVENT, blocks=1000), key, officer))
    for number in range(1, blocks + 1):
        assert ledger.reserve(Reserve(domain="training", block=f"b{number}", plan="earlier", round_number=number,
                                      event=EVENT)) is None  # fmt: skip
    ledger.close()
    return folder.database


def test_what_a_ledger_says_is_left_is_what_the_plan_meets(tmp_path: Path) -> None:
    # Three studies of 15 rounds ran at one hospital, two fifths of one at the other: 65 % and 8 % of the budget.
    ledgers = [site(tmp_path, "cleveland", 45), site(tmp_path, "va", 6)]
    before = [path.read_bytes() for path in ledgers]
    words = [word for path in ledgers for word in ("--ledger", str(path))]
    data = json.loads(privacy("plan", *words, "--json").stdout)
    assert data["ledgers"] == ["cleveland", "va"]
    left = {at["site"]: (at["left_units"], at["fits"], at["more_studies"]) for at in data["sites"]}
    fresh = json.loads(privacy("plan", "--json").stdout)
    price = fresh["sites"][0]["needed_units"] // 15
    assert left["cleveland"] == (fresh["sites"][0]["domain_units"] - 45 * price, True, 0)
    assert left["va"][1:] == (True, 3) and left["hungarian"][1:] == (True, 3)
    # What cleveland has left holds a quieter study only, and the noise says so.
    assert [item["binds"] for item in data["noise_for"]] == ["epsilon", "epsilon", "budget"]
    assert data["noise_for"][2]["tightest_site"] == "cleveland"
    assert data["noise_for"][2]["noise_multiplier"] > fresh["noise_for"][2]["noise_multiplier"]
    text = " ".join(privacy("plan", *words).stdout.split())
    assert "cleveland: 34 % of its budget is left" in text and "va: 91 % of its budget is left" in text
    assert "the budget of cleveland binds" in text
    assert [path.read_bytes() for path in ledgers] == before


def test_a_ledger_that_does_not_belong_here_is_two_lines(tmp_path: Path) -> None:
    mine, stranger = site(tmp_path, "va", 0), site(tmp_path, "elsewhere", 0)
    (tmp_path / "text").write_text("no database")
    for files in ([stranger], [tmp_path / "text"], [tmp_path / "nothing"], [mine, mine]):
        done = privacy("plan", *[word for path in files for word in ("--ledger", str(path))])
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2 and len(lines) == 2, done.stderr


def test_dist_shows_both_curves_with_their_terms_and_says_which_limit_binds() -> None:
    """Four hospitals: t = 3, c = 1, h = 2. The epsilons are those of the accountant asked with both noises."""
    text = " ".join(privacy("plan", "privacy=dist").stdout.split())
    assert all(term in text for term in TERMS)
    assert "ε site 4.72 (limit 8) at delta 0.0001" in text
    assert "ε consortium 2.99 (limit 3) at delta 0.0001" in text
    assert "against the coordinator together with at most 1 other hospital" in text
    assert "What binds: ε consortium (limit 3), with a share of 2.009." in text and "1.41 times less noisy" in text
    data = json.loads(privacy("plan", "privacy=dist", "--json").stdout)
    for steps, at in ((1.0, data["sites"][0]), (2.0, data["sites"][0]["consortium"])):
        event = PoissonGaussian(
            noise_multiplier=2.009 * steps**0.5, sampling_probability=0.25, steps=75, declared_patients=1
        )
        assert at["epsilon"] == pytest.approx(epsilon([event], 1e-4))
        assert at["headroom_units"] == at["left_units"] - at["needed_units"] > 0
    assert (data["consortium"]["honest_shares"], data["consortium"]["sum_threshold"]) == (2, 3)
    assert data["share"]["binds"] == "epsilon_consortium"
    # The control: with the caps the other way round the other limit binds, and the text says so.
    words = ("privacy.epsilon=3", "privacy.epsilon_consortium=8", "epsilon_cap=12")
    swapped = " ".join(privacy("plan", "privacy=dist", *words).stdout.split())
    assert "What binds: ε site (limit 3), with a share of 2.84." in swapped
    assert "ε site 2.99 (limit 3)" in swapped and "1.41 times" not in swapped


def test_a_ledgers_consortium_budget_is_what_a_plan_of_dist_meets(tmp_path: Path) -> None:
    officer = Identity.generate("anna")
    folder = SiteFolder.create(tmp_path / "va", "va", [officer.public])
    ledger, key = folder.ledger(), folder.identity().public.key.hex()
    for name in ("training", "consortium"):
        ledger.record(approve(open_domain(name, 8.0, 1e-4), key, officer))
    ledger.record(approve(Grant(domain="consortium", plan="earlier", event=EVENT, blocks=1000), key, officer))
    for number in range(1, 61):
        found = Reserve(domain="consortium", block=f"b{number}", plan="earlier", round_number=number, event=EVENT)
        assert ledger.reserve(found) is None
    ledger.close()
    words = ("plan", "privacy=dist", "--ledger", str(folder.database))
    va = json.loads(privacy(*words, "--json").stdout)["sites"][3]
    # Four studies of 22 % each leave an eighth of it: nothing is missing against everyone, and the study does not fit.
    assert va["fits"] and not va["consortium"]["fits"] and va["consortium"]["headroom_units"] < 0
    text = " ".join(privacy(*words).stdout.split())
    assert "no fit" in text and "What binds: consortium budget of va" in text and "are missing at va" in text


def test_what_is_not_claimed_is_said_not_to_be() -> None:
    text = " ".join(privacy("plan", "privacy=dist", "coordinator_directs=[va]").stdout.split())
    assert "ε consortium is not claimed" in text


def test_an_explanation_carries_its_terms() -> None:
    text = " ".join(privacy("explain", "3", "--delta", "1e-4").stdout.split())
    assert "can be accused" in text and "one patient of one site" in text


@pytest.mark.parametrize(
    "words",
    [
        ("epsilon", "--event", "x", "--delta", "1e-4"),
        ("epsilon", "--event", "1,0.1,5", "--delta", "2"),
        ("epsilon", "--event", "1,0.1,5", "--delta", "1e-300"),
        ("epsilon", "--event", "1e-9,.5,3", "--delta", "1e-5"),
        ("epsilon", "--event", "0.06,1,1", "--delta", "1e-5"),
        ("epsilon", "--event", "1e300,0.5,5", "--delta", "1e-5"),
        ("epsilon", "--event", "1,1e-300,5", "--delta", "1e-5"),
        ("epsilon", "--event", "0.5,1e-5,1000000000", "--delta", "1e-5"),
        ("epsilon", "--event", "2,0.1,60000", "--event", "3,0.1,60000", "--delta", "1e-5"),
        ("epsilon", "--event", "nan,0.1,5", "--delta", "1e-5"),
        ("explain", "-1", "--delta", "1e-4"),
        ("plan", "privacy=none"),
        ("plan", "rounds=no"),
        ("plann",),
    ],
)
def test_what_cannot_be_answered_is_two_lines(words: tuple[str, ...]) -> None:
    done = privacy(*words)
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0 and len(lines) == 2 and lines[0].startswith("wardround: error: "), done.stderr
