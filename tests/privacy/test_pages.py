"""The pages for officers: every number is computed anew, and every test that they name exists."""

import re
from pathlib import Path

import pytest

from wardround.privacy.accounting import epsilon, rounded_up
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.meaning import in_a_hundred, meaning, officers_words
from wardround.protocol.events import PoissonGaussian

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with ``first``, without header and rule."""
    lines = text[text.index(f"\n| {first} |") + 1 :].splitlines()
    table = lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_risks_of_the_officers_page_are_the_codes() -> None:
    found = rows(page("epsilon.md"), "epsilon | delta 1e-3")
    assert [float(row[0]) for row in found] == [0.5, 1, 3, 5, 8, 10]
    for row in found:
        assert row[1:] == [in_a_hundred(meaning(float(row[0]), 10.0**-power).gaussian) for power in (3, 4, 5, 6)]


def test_the_risks_of_the_page_on_privacy_are_the_codes() -> None:
    found = rows(page("privacy.md"), "epsilon | accused rightly, of 100 who were in the training set")
    assert len(found) == 7
    for value, share in found:
        expected = 0.01 if value == "0" else meaning(float(value), 1e-5).gaussian
        assert share == in_a_hundred(expected)


def test_a_risk_is_rounded_up_and_guessing_stays_one_in_a_hundred() -> None:
    assert [in_a_hundred(share) for share in (0.01, 0.010001, 0.014476, 0.054, 0.054002, 1.0)] == [
        *("1.0", "1.1", "1.5", "5.4", "5.5", "100.0")
    ]


def test_the_officers_page_prints_what_the_command_prints() -> None:
    assert f"```text\n{officers_words(3, 1e-4)}\n```" in page("epsilon.md")


def test_the_deltas_of_the_officers_page_are_the_rule() -> None:
    assert [delta_for(patients) for patients in (100, 1000, 10_000)] == [1e-3, 1e-4, 1e-5]
    assert "1e-3 for up to 100 patients, 1e-4 for up to 1,000, 1e-5 for up to 10,000" in page("epsilon.md")


def test_the_three_studies_are_counted_as_a_ledger_and_the_accountant_count_them() -> None:
    text, delta, cap = page("epsilon.md"), 1e-4, 8.0
    order = fixed_order(cap, delta)
    room, spent, history = allowance(cap, delta, order), 0, []
    studies = rows(text, "study | noise multiplier")
    assert len(studies) == 4
    for name, sigma, rounds, alone, share, so_far, used, fits in studies:
        event = PoissonGaussian(
            noise_multiplier=float(sigma), sampling_probability=0.25, steps=5, declared_patients=200
        )
        price = cost(event, order)
        left = (room - spent) // price
        spent, history = spent + int(rounds) * price, history + [event] * int(rounds)
        assert alone == rounded_up(epsilon([event] * int(rounds), delta)), name
        assert so_far == rounded_up(epsilon(history, delta)), name
        assert share == f"{-(-100 * int(rounds) * price // room)} %" and used == f"{-(-100 * spent // room)} %", name
        assert fits == ("yes" if spent <= room else "no"), name
    assert f"for {left} of its {rounds} rounds" in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", ["claims.md", "privacy.md"])
def test_every_test_that_a_page_names_exists(name: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", page(name)))
    known = {found for path in (ROOT / "tests").rglob("test_*.py")
             for found in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))}  # fmt: skip
    assert len(named) > 10 and named - known == set()


def test_every_claim_says_what_shows_it_and_every_non_claim_why() -> None:
    text = page("claims.md")
    claims, others = rows(text, "claim | under these conditions"), rows(text, "not this | because")
    assert all(len(row) == 3 and ("`test_" in row[2] or "rows below" in row[2]) for row in claims)
    assert all(len(row) == 2 and len(row[1]) > 10 for row in others)
    assert len(claims) >= 10 and len(others) >= 12
