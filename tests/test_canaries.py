"""Canary patients: rare words and numbers in the data of a site, looked for in every byte outside the site's folder.

The hunt reads what a run printed, every file that it wrote (tables column by column, as text and as numbers), every
message of a site and every entry of its ledger; each number is sought as text and as floating-point bytes, raw and as
the model sees it.
"""

import logging
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import pytest

from wardround.client.connectors.cohort import Cohort, make_cohort
from wardround.client.governance import grant_for, open_domain
from wardround.client.site import Site
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import stored_entries
from wardround.client.store.replies import StoredReplies
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import approve
from wardround.protocol.messages import LocalRule, RoundRequest
from wardround.protocol.outgoing import bytes_to_send
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.strategies import strategy_from

WORDS: Final = ("zx-canary-4417-qj", "CanaryFreeText xyzzy 9931", "canarycode5521")
"""A patient's id, free text in a column that the contract does not name, and a code that it does not know."""

NUMBERS: Final = {61.7350291: (50.0, 10.0), 7291.441733: (50.0, 10.0)}
"""A value inside the contract's range and one outside it -> centre and scale of its column."""

STUDY: Final = """
defaults:
  - override /task: mlp
study:
  name: canaries
  title: A study with canaries
  purpose: to find what should not be found
  controllers: [{{name: we}}]
  legal_basis: none
  ethics_reference: none
  recipients: [us]
  permitted_use: testing this program
contract:
  patient_id: pid
  columns:
    age: {{type: number, meaning: Age, unit: a, minimum: 0, maximum: 110, center: 50, scale: 10}}
    sex: {{type: code, meaning: Sex, codes: {{"0": female, "1": male}}, reference: "0"}}
  label: {{kind: class, column: outcome, meaning: Ill, positive: ["1"], negative: ["0"]}}
data:
  test_share: 0.3
  sites:
    - {{site: north, path: "{data}/north.csv"}}
    - {{site: south, path: "{data}/south.csv"}}
"""


def forms() -> dict[str, bytes]:
    """Every canary in every spelling that is looked for, by a name for the failure."""
    found = {word: word.encode() for word in WORDS}
    for number, (centre, scale) in NUMBERS.items():
        scaled = (number - centre) / scale
        for label, value in ((f"{number}", number), (f"{number} scaled", scaled)):
            found[f"{label} as text"] = f"{value:.5f}"[:-1].encode()
            for kind in "<d", ">d", "<f", ">f":
                found[f"{label} as {kind}"] = struct.pack(kind, value)
    return found


def canaries_in(data: bytes) -> list[str]:
    return [name for name, form in forms().items() if form in data]


def leaks(look: Callable[[int], Iterable[tuple[str, bytes]]]) -> dict[str, list[str]]:
    """The canaries that are found again when everything is done anew -> where they are.

    The four bytes of a number lie in what is random (noise, keys, signatures) once in some thousand runs. A leak is
    there each time.
    """

    def found(turn: int) -> dict[str, list[str]]:
        places: dict[str, list[str]] = {}
        for where, content in look(turn):
            for name in canaries_in(content):
                places.setdefault(name, []).append(where)
        return places

    first = found(1)
    again = found(2) if first else {}
    return {name: [*first[name], *again[name]] for name in first.keys() & again.keys()}


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each file; of a Parquet file also its columns, which it holds compressed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), str(path.name).encode() + path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield f"{path.name} as text", str(table.to_pydict()).encode()
            for name in table.column_names:
                values = table.column(name).to_pylist()
                numbers = [value for value in values if isinstance(value, float)]
                yield f"{path.name}: {name}", np.asarray(numbers, "<f8").tobytes()


def write_tables(folder: Path, *, broken: bool) -> None:
    """Two hospitals' tables; the canary patient is in the first, with a value and a code that are refused if broken."""
    folder.mkdir()
    chance = np.random.default_rng(3)
    for site in ("north", "south"):
        rows = ["pid,age,sex,outcome,note"]
        for number in range(120):
            rows.append(f"p{number},{chance.integers(30, 80)},{number % 2},{chance.integers(0, 2)},none")
        if site == "north":
            age, sex = ("7291.441733", "canarycode5521") if broken else ("61.7350291", "1")
            rows += [f"{WORDS[0]},{age},{sex},{outcome},{WORDS[1]}" for outcome in (0, 1, 0)]
        (folder / f"{site}.csv").write_text("\n".join(rows) + "\n")


def test_the_hunt_finds_each_canary_where_it_is(tmp_path: Path) -> None:
    for broken in (False, True):
        write_tables(tmp_path / str(broken), broken=broken)
    data = b"".join(content for _, content in everything_in(tmp_path))
    assert {name for name in forms() if " as <" not in name and " as >" not in name and "scaled" not in name} <= set(
        canaries_in(data)
    )
    for name, form in forms().items():
        assert name in canaries_in(b"x" + form + b"y")


def test_what_is_found_in_every_run_is_a_leak_and_what_is_found_in_one_is_chance() -> None:
    one, other = list(forms().values())[-2:]
    runs = {1: [("file", b"x" + one + other)], 2: [("file", b"y"), ("elsewhere", other)]}
    assert leaks(lambda turn: runs[turn]) == {list(forms())[-1]: ["file", "elsewhere"]}
    assert leaks(lambda turn: [("file", b"x")]) == {}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("privacy", ["local", "none"])
def test_a_simulation_prints_and_writes_no_canary(tmp_path: Path, broken: bool, privacy: str) -> None:
    def look(turn: int) -> Iterator[tuple[str, bytes]]:
        data, home, out = (tmp_path / f"{name}{turn}" for name in ("data", "home", "out"))
        write_tables(data, broken=broken)
        for folder in (home, out):
            folder.mkdir()
        (home / "canaries.yaml").write_text(STUDY.format(data=data))
        words = [
            "simulate",
            "study=canaries.yaml",
            f"privacy={privacy}",
            "rounds=2",
            "min_sites=2",
            f"simulation.output={out}",
        ]
        environment = os.environ | {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
        done = subprocess.run(
            [sys.executable, "-m", "wardround.console.cli", *words], cwd=home, capture_output=True, env=environment,
            timeout=180,
        )  # fmt: skip
        if broken:
            assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 2, done.stderr
            assert b"row 1" in done.stderr and (b"age" in done.stderr or b"sex" in done.stderr)
        else:
            assert done.returncode == 0, done.stderr
            assert sum(1 for _ in everything_in(out)) > 5
        yield "printed", done.stdout + done.stderr
        yield from everything_in(home)
        yield from everything_in(out)

    assert leaks(look) == {}


PLAN = make_plan(parse_configuration(compose_configuration([])), {"north": 50, "a": 50, "b": 50}, date(2026, 11, 23))
START = initial_weights(PLAN.layout, PLAN.model.scheme, PLAN.model.seed)


def canary_cohort() -> Cohort:
    """One feature of one patient is the canary, raw, and the patient's name is too."""
    assert PLAN.contract is not None
    features = np.zeros((60, len(PLAN.contract.feature_names)))
    features[:3, 0] = next(iter(NUMBERS))
    names = np.array([WORDS[0]] * 3 + [f"p{number}" for number in range(57)])
    return make_cohort("north", features, np.arange(60) % 2, test=np.arange(60) > 45, patients=names)


def test_a_sites_messages_errors_and_ledger_hold_no_canary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert leaks(lambda turn: told_by_a_site(tmp_path / str(turn), caplog)) == {}


def told_by_a_site(path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[tuple[str, bytes]]:
    path.mkdir()
    anna, ben = Identity.generate("anna"), Identity.generate("ben")
    home = SiteFolder.create(path / "north", "north", [anna.public, ben.public])
    ledger, key = home.ledger(lambda: datetime.now(UTC)), home.identity().public.key.hex()
    ledger.record(approve(open_domain("training", 12.0, 1e-4), key, anna))
    ledger.record(approve(grant_for(PLAN, "north", attempts=2), key, anna))
    cohort = canary_cohort()

    def unreadable() -> Any:
        raise_with(cohort)

    site = Site(
        PLAN, cohort, task_from(PLAN), strategy_from(PLAN.strategy), ledger,
        replies=StoredReplies(ledger._store, "north", home.replies_key()),
    )  # fmt: skip
    for number, attempt in ((1, 1), (1, 1), (1, 2), (2, 1), (99, 1)):
        model = START if number == 1 else START + np.float32(1)
        rule = LocalRule(PLAN.local.learning_rate)
        request = RoundRequest(PLAN.digest, number, attempt, model, model_hash(model), rule)
        yield f"answer {number}/{attempt}", bytes_to_send(site.answer(request, date(2026, 11, 23)))
    yield "a cohort in words", f"{site.cohort!r}{cohort.train!r}".encode()
    yield "log", caplog.text.encode()
    yield from (("an entry", entry.content) for entry in stored_entries(ledger._store, "north"))
    for refused in (lambda: cohort.__reduce__(), unreadable):
        with pytest.raises(Exception) as error:
            refused()
        yield "an error", str(error.value).encode()
    ledger.close()
    yield "ledger", home.database.read_bytes()


def raise_with(cohort: Cohort) -> None:
    """An error that a cohort's values cause: the patient with the canary's name in both parts."""
    make_cohort(
        "north",
        cohort.train.features[:4],
        cohort.train.targets[:4],
        test=np.array([True, False, False, False]),
        patients=np.array([WORDS[0]] * 2 + ["a", "b"]),
    )
