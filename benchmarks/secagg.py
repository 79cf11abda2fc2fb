"""What secure aggregation costs: processor time and bytes of a site and of the coordinator, in one run with its rivals.

    python benchmarks/secagg.py [--quick] [--json FILE]

* bound: (n - 1) x 4d bytes of AES-256-CTR key stream, added to a vector: what pairwise masks cost at the very least;
* Flower: the building blocks of the installed SecAgg+. The four stages of a client are its own functions; the
  coordinator's loop, which is not separable from its grid, is composed from its own functions in the same order. Its
  clients have n neighbours (the complete graph), the same threshold, and its default ranges. Messages are not
  serialised for it, which is in its favour;
* ours: every site really takes part, and the total is compared with the integer sum.

A site's work in Flower includes quantisation, so ours does too. Who is lost takes part in the set-up, and does not
upload. Times are process time, medians over the sites; a vector is 4d bytes.
"""

import argparse
import json
import logging
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
    _unmask,
)
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation import ndarrays_arithmetic as arithmetic
from flwr.common.secure_aggregation import secaggplus_constants as constants
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.masks import add_masks
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.privacy.secagg.session import Ready, Setup
from wardround.protocol.canonical import encode
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import Parcel, Proposal, Session, Signed, colluding, threshold

MODEL = "ee" * 32
CLIP, TARGET_RANGE, MOD_RANGE = 8.0, 1 << 22, 1 << 32
CHUNK = 1 << 18

QUICK = [(n, d) for d in (10**5, 10**6) for n in (5, 10, 20)]
FULL = [(n, d) for d in (10**5, 10**6, 10**7) for n in (5, 10, 20, 50, 100) if n * d <= 5 * 10**8]
FLOWER_MOST = 20
"""Sites beyond which Flower's side takes minutes, and is left out: its shares cost the coordinator n^3."""

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


def timed(work: Callable[Arguments, Value], *given: Arguments.args, **named: Arguments.kwargs) -> tuple[Value, float]:
    """(its value, milliseconds of process time)."""
    began = time.process_time()
    value = work(*given, **named)
    return value, 1e3 * (time.process_time() - began)


@dataclass(slots=True)
class Costs:
    """Milliseconds by phase: of each site, and of the coordinator. ``up``: bytes by phase of one site."""

    sites: dict[str, list[float]] = field(default_factory=dict)
    server: float = 0.0
    up: dict[str, int] = field(default_factory=dict)
    wall: float = 0.0

    def site(
        self, phase: str, work: Callable[Arguments, Value], *given: Arguments.args, **named: Arguments.kwargs
    ) -> Value:
        value, milliseconds = timed(work, *given, **named)
        self.sites.setdefault(phase, []).append(milliseconds)
        return value

    def serve(self, work: Callable[Arguments, Value], *given: Arguments.args, **named: Arguments.kwargs) -> Value:
        value, milliseconds = timed(work, *given, **named)
        self.server += milliseconds
        return value

    def median(self, *phases: str) -> float:
        return sum(statistics.median(self.sites[phase]) for phase in phases)


def size_of(message: Signed | Parcel) -> int:
    """Bytes on the wire: canonical JSON with bytes in hex; the three byte strings of a parcel as they are."""
    if isinstance(message, Parcel):
        names = len(encode([message.dealer, message.recipient]))
        return names + len(message.ciphertext) + len(message.envelope) + len(message.commitments)
    return len(encode({**message.header, "signature": message.signature.hex()}))


def masking(n: int, d: int, turns: int) -> tuple[float, float]:
    """Milliseconds over d residues of 32 bits: (the bound, a site's masks alone), which take turns.

    The bound is (n - 1) key streams added to a vector chunk by chunk. A site has n masks, its own among them; here they
    are without what it does besides: encoding, a hash, a signature.
    """
    vector, zeros, stream = np.zeros(d, "<u4"), memoryview(bytes(CHUNK)), np.empty(CHUNK // 4, "<u4")

    def least(ciphers: Sequence[CipherContext]) -> None:
        for start in range(0, d, len(stream)):
            part = vector[start : start + len(stream)]
            mask = stream[: len(part)]
            for cipher in ciphers:
                cipher.update_into(zeros[: part.nbytes], mask.data.cast("B"))
                np.add(part, mask, out=part)

    bounds, ours = [], []
    for _ in range(turns):
        keys = [os.urandom(32) for _ in range(n)]
        bounds.append(timed(least, [Cipher(AES(key), CTR(bytes(16))).encryptor() for key in keys[1:]])[1])
        ours.append(timed(add_masks, vector, [(key, -1 if key[0] % 2 else 1) for key in keys])[1])
    return statistics.median(bounds), statistics.median(ours)


def set_up(n: int, d: int, stock: int, costs: Costs, all_agree: bool = True) -> tuple[SetupDesk, list[Ready]]:
    """A session of n sites; without ``all_agree``, only the first t agree, which is enough to measure them."""
    identities = [Identity.generate(f"s{number:03d}") for number in range(n)]
    members = tuple(identity.public for identity in identities)
    t, c, operator = threshold(n), colluding(n), Identity.generate("operator")
    session = Session("ab" * 32, "cd" * 32, "bench", members, t, c, 32, d, (1,), stock, operator.public)
    desk, sites = SetupDesk(session, operator), [Setup(session, identity, os.urandom) for identity in identities]
    for site in sites:
        keys = costs.site("keys", site.keys)
        costs.serve(desk.add_keys, keys)
    for site in sites:
        deal, parcels = costs.site("deal", site.deal, desk.keys())
        costs.serve(desk.add_deal, deal, parcels)
    agreeing = sites if all_agree else sites[: threshold(n)]
    for identity, site in zip(identities, agreeing, strict=False):
        deals, mine = costs.serve(desk.deals), costs.serve(desk.parcels_for, identity.site)
        agreement = costs.site("agree", site.agree, deals, mine)
        costs.serve(desk.add_agreement, agreement)
    ready = [costs.site("begin", site.begin, desk.agreements()) for site in agreeing]
    costs.up = {
        "keys": size_of(keys),
        "deal": size_of(deal) + sum(size_of(parcel) for parcel in parcels),
        "agree": size_of(agreement),
    }
    return desk, ready


def round_of(desk: SetupDesk, ready: Sequence[Ready], lost: int, attempt: int) -> Costs:
    """One attempt, of which the first ``lost`` sites are lost before they mask."""
    costs, session = Costs(), desk.session
    base = np.random.default_rng(attempt).integers(-(10**6), 10**6, session.length)
    proposal = Proposal(
        session.digest, 1, attempt, tuple(site.identity.site for site in ready), MODEL, "update"
    ).signed_by(desk.identity)
    players = [SitePlayer(site) for site in ready[lost:]]
    began = time.perf_counter()
    table = AttemptDesk(desk, proposal)
    for number, player in enumerate(players):
        values = base + number
        upload, vector = costs.site("mask", player.mask, proposal, MODEL, values, "00" * 32)
        costs.serve(table.add_upload, upload, vector)
        costs.up["mask"] = vector.nbytes + size_of(upload)
        player.forget(1)
        del vector, values
    survivors = costs.serve(table.survivors)
    for player in players:
        consent = costs.site("consent", player.consent, proposal, survivors)
        costs.serve(table.add_consent, consent)
    consents = costs.serve(table.consents)
    for player in players:
        _, opening = costs.site("open", player.open, proposal, consents)
        costs.serve(table.add_opening, opening)
    total = costs.serve(table.total)
    costs.wall = time.perf_counter() - began
    costs.up |= {"consent": size_of(consent), "open": size_of(opening)}
    m = len(players)
    assert np.array_equal(total, m * base + m * (m - 1) // 2), "the total is not the sum"
    return costs


def quantising(n: int, d: int) -> float:
    """Milliseconds of quantising one vector, as a site does before it masks."""
    values = np.random.default_rng(0).normal(size=d)
    quantizer = Quantizer(Ring(32), n, ((d, CLIP),))
    return statistics.median(timed(quantizer.quantize, values, os.urandom(32))[1] for _ in range(3))


def flower_round(n: int, d: int, losses: Sequence[int]) -> list[Costs]:
    """SecAgg+ of the installed Flower with n clients, then its coordinator once for each number of losses."""
    key, first, values = constants.Key, Costs(), np.random.default_rng(0).normal(size=d)
    told: Any = {
        key.SAMPLE_NUMBER: n, key.SHARE_NUMBER: n, key.THRESHOLD: threshold(n), key.CLIPPING_RANGE: CLIP,
        key.TARGET_RANGE: TARGET_RANGE, key.MOD_RANGE: MOD_RANGE, key.MAX_WEIGHT: 1000.0,
    }  # fmt: skip
    states = {node: SecAggPlusState(nid=node) for node in range(1, n + 1)}
    public: Any = {}
    for node, state in states.items():
        sent: Any = first.site("keys", _setup, state, told)
        public[str(node)] = [sent[key.PUBLIC_KEY_1], sent[key.PUBLIC_KEY_2]]
    parcels: dict[int, list[tuple[int, bytes]]] = {node: [] for node in states}
    for node, state in states.items():
        sent = first.site("deal", _share_keys, state, public)
        for to, parcel in zip(sent[key.DESTINATION_LIST], sent[key.CIPHERTEXT_LIST], strict=True):
            parcels[to].append((node, parcel))
    parameters, uploads = ndarrays_to_parameters([values]), {}
    for node, state in states.items():
        given: Any = {
            key.SOURCE_LIST: [source for source, _ in parcels[node]],
            key.CIPHERTEXT_LIST: [parcel for _, parcel in parcels[node]],
        }
        sent = first.site("mask", _collect_masked_vectors, state, given, 1000, parameters)
        uploads[node] = sent[key.MASKED_PARAMETERS]
        first.up["mask"] = sum(len(part) for part in uploads[node])
    found = []
    for lost in losses:
        costs = Costs(sites=dict(first.sites), up=dict(first.up))
        dead, active = list(range(1, lost + 1)), list(range(lost + 1, n + 1))
        shares: dict[int, list[bytes]] = {node: [] for node in states}
        costs.sites["open"] = []
        for node in active:
            asked: Any = {key.ACTIVE_NODE_ID_LIST: active, key.DEAD_NODE_ID_LIST: dead}
            sent = costs.site("open", _unmask, states[node], asked)
            for owner, share in zip(sent[key.NODE_ID_LIST], sent[key.SHARE_LIST], strict=True):
                shares[owner].append(share)
        mean = costs.serve(flower_server, uploads, public, shares, active)
        assert np.abs(mean - np.clip(values, -CLIP, CLIP)).max() < 1e-4, "Flower's mean is not the mean"
        found.append(costs)
    return found


def flower_server(
    uploads: dict[int, list[bytes]], public: Any, shares: dict[int, list[bytes]], active: list[int]
) -> Any:
    """What ``SecAggPlusWorkflow`` does between the uploads and the mean, with its own functions."""
    total: list[Any] = []
    for node in active:
        sent = [bytes_to_ndarray(part) for part in uploads[node]]
        total = arithmetic.parameters_addition(total, sent) if total else sent
    total = arithmetic.parameters_mod(total, MOD_RANGE)
    for node, held in shares.items():
        secret = combine_shares(held)
        shapes = arithmetic.get_parameters_shape(total)
        if node in active:
            total = arithmetic.parameters_subtraction(total, pseudo_rand_gen(secret, MOD_RANGE, shapes))
            continue
        for other in shares:
            if other != node:
                peer = bytes_to_public_key(public[str(other)][0])
                mask = pseudo_rand_gen(generate_shared_key(bytes_to_private_key(secret), peer), MOD_RANGE, shapes)
                change = arithmetic.parameters_addition if node > other else arithmetic.parameters_subtraction
                total = change(total, mask)
    factor, rest = arithmetic.factor_extract(arithmetic.parameters_mod(total, MOD_RANGE))
    vector: Any = dequantize(rest, CLIP, TARGET_RANGE)[0]
    vector += -(len(active) - 1) * CLIP
    vector *= TARGET_RANGE / factor
    return vector


def memory(n: int, d: int) -> tuple[float, float, float]:
    """Peak allocation in vectors: a site's masking with its integers, the same with quantising, the coordinator's."""
    desk, ready = set_up(n, d, 1, Costs())
    proposal = Proposal(
        desk.session.digest, 1, 1, tuple(site.identity.site for site in ready), MODEL, "update"
    ).signed_by(desk.identity)
    players = [SitePlayer(site) for site in ready]
    reals = np.random.default_rng(0).normal(size=d)
    quantizer = Quantizer(Ring(32), n, ((d, CLIP),))
    tracemalloc.start()
    sent = [players[0].mask(proposal, MODEL, np.ones(d, np.int64), "00" * 32)]
    alone = tracemalloc.get_traced_memory()[1]
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    sent.append(players[1].mask(proposal, MODEL, quantizer.quantize(reals, os.urandom(32)), "00" * 32))
    whole = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    sent += [player.mask(proposal, MODEL, np.ones(d, np.int64)) for player in players[2:]]
    tracemalloc.start()
    table = AttemptDesk(desk, proposal)
    for upload, vector in sent:
        table.add_upload(upload, vector.copy())  # as it arrives, and is let go
    for player in players:
        table.add_consent(player.consent(proposal, table.survivors()))
    for player in players:
        table.add_opening(player.open(proposal, table.consents())[1])
    table.total()
    server = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return alone / (4 * d), whole / (4 * d), server / (4 * d)


class Rows(list[dict[str, Any]]):
    """What --json writes, and what is printed, with the goal beside it where there is one."""

    def put(self, case: str, metric: str, value: float, unit: str, against: str = "", ratio: float | None = None,
            goal: str = "") -> None:  # fmt: skip
        row = {"case": case, "metric": metric, "value": value, "unit": unit}
        self.append(row | {"against": against if ratio is not None else "", "ratio": ratio})
        beside = f"{ratio:10.2f} x {against}" if ratio is not None else ""
        print(f"{case:26}{metric:34}{value:14.2f} {unit:8}{beside:34}{goal}", flush=True)


def compare(rows: Rows, n: int, d: int) -> None:
    losses = (0, n // 5)
    prepared, turns = Costs(), 3 if n * d > 10**7 else 7
    desk, ready = set_up(n, d, len(losses), prepared)
    ours = [round_of(desk, ready, lost, attempt) for attempt, lost in enumerate(losses, start=1)]
    (least, alone), quantise = masking(n, d, turns), quantising(n, d)
    theirs = flower_round(n, d, losses) if n <= FLOWER_MOST else []
    case = f"n={n} d={d:.0e}".replace("e+0", "e")
    keying = prepared.median("keys", "deal", "agree", "begin")
    their_keying = theirs[0].median("keys", "deal") if theirs else None
    ratio = keying / their_keying if their_keying else None
    rows.put(case, "site: set-up, 2 attempts", keying, "ms", "Flower, each round", ratio)
    rows.put(case, "coordinator: set-up", prepared.server, "ms")
    rows.put(case, "site: bytes of set-up", sum(prepared.up.values()), "bytes")
    rows.put(case, "bound on masking", least, "ms")
    mask = ours[0].median("mask")
    goal = "goal 1.25" if d >= 10**6 else ""
    rows.put(case, "site: the masks alone", alone, "ms", "bound", alone / least, goal)
    rows.put(case, "site: mask, with its hash", mask, "ms", "bound", mask / least, goal)
    beside: list[Costs | None] = [*theirs] or [None] * len(losses)
    for lost, mine, other in zip(losses, ours, beside, strict=True):
        name = f"{case}, {lost} lost"
        whole = quantise + mine.median("mask", "consent", "open")
        parts = {"quantise": quantise, **{phase: mine.median(phase) for phase in ("mask", "consent", "open")}}
        for phase, value in parts.items():
            if lost == 0 or phase in ("consent", "open"):
                rows.put(name, f"site: {phase}", value, "ms")
        goal = "goal 0.10" if n in (10, 20) and d == 10**6 else ""
        client = whole / other.median("mask", "open") if other else None
        server = mine.server / other.server if other else None
        rows.put(name, "site: round with quantising", whole, "ms", "Flower", client, goal)
        rows.put(name, "coordinator", mine.server, "ms", "Flower", server, goal)
        if other:
            rows.put(name, "Flower, site: round", other.median("mask", "open"), "ms")
            rows.put(name, "Flower, coordinator", other.server, "ms")
        rows.put(name, "site: bytes of a round", sum(mine.up.values()), "bytes")
        more, allowed = sum(mine.up.values()) - 4 * d, 2000 + 300 * (n - 1)
        rows.put(
            name, "site: bytes besides the vector", more, "bytes", "2 kB + 300 B a peer", more / allowed, "goal 1.00"
        )
        limit = "goal 20 s" if (n, d, lost) == (100, 10**6, 20) else ""
        rows.put(name, "whole round, wall clock", mine.wall, "s", goal=limit)
    if theirs:
        rows.put(case, "Flower, site: bytes of vector", theirs[0].up["mask"], "bytes", "ours",
                 theirs[0].up["mask"] / ours[0].up["mask"])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="secure aggregation, beside Flower's SecAgg+ and the bound")
    parser.add_argument("--quick", action="store_true", help="up to 20 sites: under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows = Rows()
    for n, d in QUICK if options.quick else FULL:
        compare(rows, n, d)
    for n in (5, 20):
        alone, whole, server = memory(n, 10**6)
        rows.put(f"n={n} d=1e6", "site: peak of masking", alone, "vectors", "3 vectors", alone / 3, "goal 1.00")
        rows.put(f"n={n} d=1e6", "site: peak with quantising", whole, "vectors", "3 vectors", whole / 3)
        rows.put(f"n={n} d=1e6", "coordinator: peak", server, "vectors", "4 vectors", server / 4, "goal 1.00")
    costs = Costs()
    set_up(50, 1, 50, costs, all_agree=not options.quick)
    keying = costs.median("keys", "deal", "agree", "begin")
    rows.put("n=50, stock of 50", "site: set-up", keying, "ms", "500 ms", keying / 500, "goal 1.00")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
