"""A site killed at any point: it never counts less than it drew, never sends a second answer, and never hangs.

``shim.c`` counts every write, truncation, sync, unlink and rename in the site's folder, and every point where the
site's work can be suspended; one run without a crash tells how many there are. A point is tried by SIGKILL, by SIGKILL
in the middle of a write, and as a power failure that takes back what was not synced. `make test` draws 30 anew each
time; `make soak` tries all of them.
"""

import secrets
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import stored_entries
from wardround.client.store.verify import verify_file
from wardround.protocol.canonical import LABEL_RELEASE, digest
from wardround.protocol.entry import parse_content
from wardround.protocol.errors import UsageError
from wardround.protocol.ledger import Release
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import parse_answer

POINTS = 30

pytestmark = pytest.mark.server("cc")


@pytest.fixture(scope="module")
def template(hospital: Any) -> Path:
    """A site's folder with a granted plan, in which nothing has run."""
    folder = hospital.place / "template"
    assert hospital.job("create", folder)[0] == "code 0"
    return folder


def check(hospital: Any, folder: Path, logs: list[Path]) -> None:
    """What must be true after any crashes and a last run to the end; ``logs`` in the order of the runs."""
    noted = hospital.lines(*logs)
    assert "finished" in noted[-1], "the last run did not come to its end"
    found = verify_file(folder / "ledger.sqlite")
    drawn = sum("drawn" in line for line in noted)
    blocks = found.domains[0].blocks
    assert blocks >= drawn, f"patients were drawn {drawn} times, and {blocks} blocks are charged"
    # Nothing is lost either: a crash costs at most the block that it interrupted.
    assert blocks <= drawn + len(logs) - 1

    answers: dict[tuple[int, int], set[str]] = {}
    vectors: dict[int, set[bytes]] = {}
    for line in noted:
        if "bytes" in line and not line["refused"]:
            answers.setdefault((line["round"], line["attempt"]), set()).add(line["bytes"])
            reply = parse_answer(bytes.fromhex(line["bytes"]), "north")
            assert isinstance(reply, Reply)
            vectors.setdefault(line["round"], set()).add(reply.vector.tobytes())
    # A round whose training a crash has interrupted is not drawn again: the site sits it out, charged.
    sat_out = {line["round"] for line in noted if "bytes" in line and line["refused"]} - set(vectors)
    assert set(vectors) | sat_out == {1, 2, 3}, "a round was neither answered nor sat out"
    assert len(sat_out) < len(logs), "more rounds were sat out than there were crashes"
    assert all(len(told) == 1 for told in answers.values()), "one attempt got two answers"
    assert all(len(told) == 1 for told in vectors.values()), "two vectors left for one round"

    store = SiteFolder.open(folder).ledger()
    facts = [parse_content(entry.content).fact for entry in stored_entries(store._store, "north")]
    released = {fact.content for fact in facts if isinstance(fact, Release)}
    left = {digest(LABEL_RELEASE, bytes.fromhex(told)) for (told,) in answers.values()}
    assert left <= released, "something left that the ledger does not hold"
    store.close()


def test_a_site_that_is_killed_while_it_serves(hospital: Any, template: Path) -> None:
    whole = hospital.place / "whole"
    shutil.copytree(template, whole)
    points, passed = hospital.points("serve", whole), Counter[str]()
    assert points > 100
    for at, mode in hospital.chosen(points, POINTS - 8):
        folder = hospital.place / f"serve-{mode}-{at}"
        shutil.copytree(template, folder)
        how, log = hospital.job("serve", folder, at, mode)
        assert how != "stuck", (at, mode)
        passed[how] += 1
        logs = [log]
        # The restart may be killed too, somewhere; then the machine has peace.
        again = secrets.randbelow(points) + 1 if secrets.randbelow(2) else 0
        how, log = hospital.job("serve", folder, again, mode)
        logs.append(log)
        if how == "killed":
            how, log = hospital.job("serve", folder)
            logs.append(log)
        error = log.with_suffix(".error")
        assert how == "code 0", (at, again, mode, how, error.read_text() if error.exists() else "")
        try:
            check(hospital, folder, logs)
        except Exception as failed:
            raise AssertionError(f"killed at point {at} and {again} of {points} ({mode})") from failed
        shutil.rmtree(folder)
    print(f"\nserve: {sum(passed.values())} of {3 * points} points tried, {passed['killed']} killed, 0 failures")
    assert passed["killed"] > 0


@pytest.mark.parametrize(
    ("fault", "mode"),
    [
        ("commits are not synced", "power"),
        ("a crash gives the charge back", "kill"),
        ("an answer leaves before it is kept", "kill"),
    ],
)
def test_these_checks_notice_a_site_that_is_wrong(hospital: Any, template: Path, fault: str, mode: str) -> None:
    whole = hospital.place / f"whole {fault}"
    shutil.copytree(template, whole)
    points = hospital.points("serve", whole)
    order = secrets.SystemRandom().sample(range(1, points + 1), points)
    for tried, at in enumerate(order, start=1):
        folder = hospital.place / f"{fault}-{at}"
        shutil.copytree(template, folder)
        logs = [hospital.job("serve", folder, at, mode, fault)[1], hospital.job("serve", folder, fault=fault)[1]]
        try:
            check(hospital, folder, logs)
        except Exception as noticed:
            print(f"\n{fault}: noticed at the {tried}. point, {noticed}")
            return
    pytest.fail("no point showed it")


def test_a_site_that_is_killed_while_it_is_made(hospital: Any) -> None:
    """A folder without its last file is none, and says so; a whole one works. No key is ever half written into use."""
    points = hospital.points("create", hospital.place / "made")
    killed = Counter[str]()
    for at, mode in hospital.chosen(points, 8):
        folder = hospital.place / f"create-{mode}-{at}"
        how, log = hospital.job("create", folder, at, mode)
        assert how in ("killed", "code 0"), (at, mode, how)
        killed[how] += 1
        try:
            SiteFolder.open(folder)
        except UsageError as error:
            assert "is no site's folder" in error.message
        else:
            found = verify_file(folder / "ledger.sqlite")
            created = any("created" in line for line in hospital.lines(log))
            assert found.entries == 4 if created else 2 <= found.entries <= 4
            assert SiteFolder.open(folder).ledger().state.size == found.entries
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\ncreate: {sum(killed.values())} of {3 * points} points tried, {killed['killed']} killed, 0 failures")
    assert killed["killed"] > 0
