"""The page of opt-outs: counts that are rounded up, where they come from, and nobody's id."""

import re
from contextlib import closing
from html import unescape
from typing import Any

from wardround.client.store.database import open_store
from wardround.client.store.members import Members, Part
from wardround.client.store.opt_outs import OptOuts
from wardround.console.web.queries.ledger import LedgerReader
from wardround.console.web.queries.patients import opt_out_view


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def view(world: Any) -> Any:
    with LedgerReader(world.path, "north").read() as (books, store):
        return opt_out_view(books, store, world.path)


def told(world: Any, ids: list[str], tests: int = 0, merged: tuple[str, str] | None = None) -> None:
    """The sources said that exactly ``ids`` opted out; so many test patients are enrolled."""
    with closing(open_store(world.folder.database)) as store:
        members = Members(store, world.folder.patients_key())
        if tests:
            members.enrol([f"t-{number}" for number in range(tests)], "test", Part.TEST)
        if merged:
            members.enrol([merged[0]], "training", Part.TRAIN)
            members.merge(*merged)
        OptOuts(members).update(ids)


def test_counts_are_rounded_up_to_the_next_ten_and_none_is_none(world: Any) -> None:
    assert (view(world).at_most, view(world).changed, view(world).test_at_most) == (0, "", 0)
    for count, at_most in ((1, 10), (10, 10), (11, 20)):
        told(world, [f"p-{number}" for number in range(count)])
        assert view(world).at_most == at_most
    told(world, ["p-0"], tests=21)
    assert (view(world).at_most, view(world).ended_at_most, view(world).test_at_most) == (10, 10, 30)


def test_two_ids_of_one_person_are_one(world: Any) -> None:
    told(world, [f"p-{number}" for number in range(11)], merged=("p-0", "p-1"))
    assert view(world).at_most == 10


def test_one_more_patient_changes_nothing_that_is_shown(world: Any, client_as: Any) -> None:
    told(world, [f"p-{number}" for number in range(12)])
    client = client_as("it")
    before = text_of(client.get("/patients"))
    told(world, [f"p-{number}" for number in range(13)])
    assert text_of(client.get("/patients")) == before and "at most 20" in before


def test_no_id_no_hash_and_no_exact_count_is_on_the_page(world: Any, client_as: Any) -> None:
    ids = [f"MRN{number}" for number in range(1237)]
    told(world, ids)
    (world.path / "opt-outs.txt").write_text("\n".join(ids))
    (world.path / "site.yaml").write_text("opt_outs:\n  - {kind: list, path: opt-outs.txt}\n")
    with closing(open_store(world.folder.database)) as store:
        hashes = [bytes(row[0]).hex() for row in store.execute("SELECT id FROM opt_outs")]
    for role in ("officer", "it", "auditor"):
        answer = client_as(role).get("/patients")
        assert "at most 1,240" in text_of(answer) and "opt-outs.txt" in answer.text
        assert not re.search(r"MRN|1,?237", answer.text)
        assert not any(found[:16] in answer.text for found in hashes)


def test_sources_that_are_missing_or_not_readable_are_said(world: Any, client_as: Any) -> None:
    client = client_as("officer")
    assert "No source of opt-outs is named in site.yaml." in text_of(client.get("/patients"))
    (world.path / "site.yaml").write_text(
        "opt_outs:\n  - {kind: list, path: gone.txt}\n  - {kind: fhir, path: consents.ndjson}\n"
    )
    text = text_of(client.get("/patients"))
    assert "A list of ids gone.txt not there" in text and "FHIR Consent resources consents.ndjson not there" in text
    (world.path / "site.yaml").write_text("opt_outs: {Quillfeather: yes")
    answer = client.get("/patients")
    assert "the sources are not known" in text_of(answer) and "Quillfeather" not in answer.text


def test_the_last_round_says_whom_it_left_out(world: Any, client_as: Any, helpers: Any) -> None:
    assert view(world).last_started_at_most == 0
    assert "Left out of the last round that started none" in text_of(client_as("auditor").get("/patients"))
