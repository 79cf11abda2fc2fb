"""What gossip on ledgers costs: bytes of a bulletin, and of what a site sends and hears in a round, by number of sites.

    python benchmarks/gossip.py 4 10 50

Ledgers in memory with real keys, heads and proofs; every site cosigns and hears as the protocol assigns it.
"""

import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

from wardround.client.gossip import Gossiper
from wardround.client.store.database import open_store
from wardround.client.store.ledger import Ledger
from wardround.client.store.witness import Witness
from wardround.protocol.bulletin import cycle, partners_of, witnesses_of
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Refuse
from wardround.protocol.secagg import colluding

ENTRIES = 300
"""Entries that each ledger begins with: a site of a few years."""


def measured(sites: int, rounds: int) -> dict[str, float]:
    """Means over the second half of ``rounds``: bytes of a bulletin, heard by a site, seconds a site and round."""
    clock = [datetime(2026, 11, 23, tzinfo=UTC)]
    identities = {name: Identity.generate(name) for name in (f"site-{n:03d}" for n in range(sites))}
    public = {name: identity.public for name, identity in identities.items()}
    ledgers, witnesses, gossipers = {}, {}, {}
    for name, identity in identities.items():
        store = open_store(None)
        ledgers[name] = Ledger(store, name, identity)
        ledgers[name].record(*(Refuse(plan="p", round_number=n, reason="an entry") for n in range(ENTRIES)))
        witnesses[name] = Witness(store, identity)
        gossipers[name] = Gossiper(store, ledgers[name], witnesses[name], identity, lambda: clock[0])
    said: dict[str, str] = {}
    sizes, heard, seconds, alarms = [], [], [], 0
    for number in range(1, rounds + 1):
        clock[0] += timedelta(minutes=1)
        for name in identities:
            ledgers[name].record(*(Refuse(plan="p", round_number=number, reason=f"entry {n}") for n in range(3)))
            # One head a round, offered to all of its witnesses, as a site gives it with its signature under a receipt.
            offered, tree = ledgers[name].checkpoint(), ledgers[name].tree()
            size, signed = tree.size, ledgers[name].state.countersigned
            asked = witnesses_of(name, identities, number, colluding(sites) + 1)
            proofs = {witness: tree.consistency(signed.get(witness, 0), size) for witness in asked}
            for witness, proof in proofs.items():
                note = witnesses[witness].cosign(offered, proof, public[name])
                ledgers[name].countersign(note, public[witness])
                gossipers[name].cosigned(witness, size, sites)
        fresh = {}
        for name, gossiper in gossipers.items():
            began, others = time.perf_counter(), {n: p for n, p in public.items() if n != name}
            brought = [said[one] for one in partners_of(name, identities, number) if one in said]
            gossiper.hear(brought, others)
            fresh[name] = gossiper.bulletin(others).decode()
            if number > rounds // 2:
                seconds.append(time.perf_counter() - began)
                heard.append(sum(map(len, brought)))
                sizes.append(len(fresh[name]))
        said = fresh
    alarms = sum(len(gossiper.watch.alarms()) for gossiper in gossipers.values())
    return {
        "cycle": cycle(sites),
        "bulletin": statistics.mean(sizes),
        "largest": max(sizes),
        "heard": statistics.mean(heard),
        "seconds": statistics.mean(seconds),
        "alarms": alarms,
    }


if __name__ == "__main__":
    for count in map(int, sys.argv[1:] or ("4", "10", "50")):
        print(count, {name: round(value, 4) for name, value in measured(count, cycle(count) + 8).items()})
