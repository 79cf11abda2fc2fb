"""A hospital's ledger after many years: admission, opening, verifying and the size of the file, beside their floors.

The ledger has an officer's grant, then rounds of three entries each (reserve, start, release), all signed and written
through the store. Admission is compared with admission into an empty ledger, each with its fsync; verifying with the
bare check of as many Ed25519 signatures on one core; the file with the bytes of its contents.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from wardround.client.governance import open_domain
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger, stored_entries
from wardround.client.store.verify import verify_file
from wardround.protocol.entry import signed_message
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.ledger import Grant, Release, Reserve, Start, approve

EVENT = PoissonGaussian(noise_multiplier=20.0, sampling_probability=0.01, steps=1, declared_patients=200)
PLAN = "ab" * 32
ADMISSIONS = 200


def new_site(folder: Path, plans: Sequence[str] = (PLAN,)) -> tuple[SiteFolder, Ledger]:
    """A site whose officer granted each plan more rounds than this file writes."""
    officers = [Identity.generate("anna"), Identity.generate("ben")]
    site = SiteFolder.create(folder, "north", [officer.public for officer in officers])
    ledger, key = site.ledger(), site.identity().public.key.hex()
    ledger.record(approve(open_domain("training", 8.0, 1e-4), key, officers[0]))
    for plan in plans:
        ledger.record(approve(Grant(domain="training", plan=plan, event=EVENT, blocks=10**6), key, officers[0]))
    return site, ledger


def reservation(number: int, plan: str = PLAN) -> Reserve:
    block = f"{plan[:16]}/{number:05d}/1/training"
    return Reserve(domain="training", block=block, plan=plan, round_number=number, event=EVENT)


def write(ledger: Ledger, rounds: int, plans: Sequence[str] = (PLAN,)) -> float:
    """Microseconds an entry, without waiting for the disk: the file is filled, not measured. Plans follow in turn."""
    ledger._store.execute("PRAGMA synchronous = OFF")
    started = perf_counter()
    for number in range(1, rounds + 1):
        fact = reservation(number, plans[number % len(plans)])
        refused = ledger.reserve(fact)
        assert refused is None, refused
        ledger.record(Start(block=fact.block))
        ledger.record(Release(block=fact.block, attempt=1, content="00" * 32))
    seconds = perf_counter() - started
    ledger._store.execute("PRAGMA synchronous = FULL")
    return seconds / (3 * rounds) * 1e6


def admission(ledger: Ledger, first: int) -> float:
    """Median milliseconds until a reservation is on disk."""
    times = []
    for number in range(first, first + ADMISSIONS):
        started = perf_counter()
        refused = ledger.reserve(reservation(number))
        times.append(perf_counter() - started)
        assert refused is None, refused
    return median(times) * 1000


def signatures_alone(ledger: Ledger, key: PublicIdentity) -> tuple[int, float]:
    """(entries, seconds) of checking the signatures of the first 5,000 entries in this process, and nothing else."""
    entries = [entry for entry, _ in zip(stored_entries(ledger._store, "north"), range(5000), strict=False)]
    started = perf_counter()
    assert all(key.verifies(entry.signature, signed_message(entry.hash)) for entry in entries)
    return len(entries), perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 entries instead of 100,000; under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    rounds = 3_334 if arguments.quick else 33_334
    with tempfile.TemporaryDirectory() as folder:
        _, small = new_site(Path(folder) / "small")
        site, ledger = new_site(Path(folder) / "large")
        written = write(ledger, rounds)
        # In turn, so that a drift of the disk's speed hits both.
        empty = admission(small, 1)
        full = admission(ledger, rounds + 1)
        empty = median([empty, admission(small, ADMISSIONS + 1)])
        started = perf_counter()
        reopened = site.ledger()
        opening = perf_counter() - started
        count, alone = signatures_alone(reopened, site.identity().public)
        contents = sum(len(entry.content) for entry in stored_entries(reopened._store, "north"))
        reopened.close()
        ledger._store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ledger.close()
        size = site.database.stat().st_size
        started = perf_counter()
        found = verify_file(site.database)
        verifying = perf_counter() - started
    floor = alone / count * found.entries
    case = f"{found.entries:,} entries"
    rows = [
        row(case, "admission", full, "ms", "an empty ledger", full / empty),
        row(case, "verify", verifying, "s", "its signatures alone, one core", verifying / floor),
        row(case, "open", opening, "s", "verify", opening / verifying),
        row(case, "file", size / 1e6, "MB", "the bytes of its contents", size / contents),
        row(case, "write without fsync", written, "us an entry", "", None),
    ]
    for each in rows:
        ratio = "" if each["ratio"] is None else f"{each['ratio']:>6.2f}x of {each['against']}"
        print(f"{case:>16}  {each['metric']:<20} {each['value']:>9.2f} {each['unit']:<12} {ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def row(case: str, metric: str, value: float, unit: str, against: str, ratio: float | None) -> dict[str, object]:
    return {"case": case, "metric": metric, "value": value, "unit": unit, "against": against, "ratio": ratio}


if __name__ == "__main__":
    main()
