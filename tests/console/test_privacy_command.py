"""``wardround privacy``: numbers with all their terms, JSON that parses, and two lines where nothing can be said."""

import json
import subprocess
import sys

import pytest

from wardround.privacy.accounting import epsilon
from wardround.protocol.events import PoissonGaussian

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


def test_an_explanation_carries_its_terms() -> None:
    text = " ".join(privacy("explain", "3", "--delta", "1e-4").stdout.split())
    assert "can be accused" in text and "one patient of one site" in text


@pytest.mark.parametrize(
    "words",
    [
        ("epsilon", "--event", "x", "--delta", "1e-4"),
        ("epsilon", "--event", "1,0.1,5", "--delta", "2"),
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
