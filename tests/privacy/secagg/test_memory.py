"""Memory does not grow with the number of sites: masks are streamed, uploads are added up, nothing is collected.

In vectors of 4d bytes: a site's integers are two of them (64 bits each) and its masked vector is one; the coordinator
holds the running sum and what arrives, and at the end the sum, opened in place, and the total in 64 bits.
"""

import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from wardround.privacy.secagg import client, server
from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.masks import CHUNK, key_stream
from wardround.privacy.secagg.quantize import Quantizer
from wardround.privacy.secagg.ring import Residues, Ring
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.privacy.secagg.session import Ready
from wardround.privacy.secagg.transcript import set_up
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import Proposal, Session, Upload, colluding, threshold

LENGTH = 2_000_000
VECTOR = 4 * LENGTH
SLACK = CHUNK + (1 << 19)
"""The buffer of one chunk, and 512 KiB for messages, signatures and everything else that is not a vector."""
MODEL = "ee" * 32

Party = tuple[SetupDesk, list[Ready], Proposal]


def party(sites: int) -> Party:
    identities = [Identity.generate(f"s{number:02d}") for number in range(sites)]
    members = tuple(identity.public for identity in identities)
    t, c, operator = threshold(sites), colluding(sites), Identity.generate("operator")
    session = Session("ab" * 32, "cd" * 32, "s1", members, t, c, 32, LENGTH, (1,), 1, operator.public)
    desk, ready = set_up(session, operator, identities, os.urandom)
    return desk, list(ready.values()), desk.proposal(1, 1, MODEL, "update")


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives a function for the peak of what was allocated since, in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def masking(made: Party) -> int:
    _, ready, proposal = made
    player = SitePlayer(ready[0])
    with traced() as peak:
        player.mask(proposal, MODEL, np.ones(LENGTH, np.int64))
        return peak()


def summing(made: Party, lost: int) -> int:
    """The coordinator's peak: each upload is there only while it is added."""
    desk, ready, proposal = made
    players = [SitePlayer(site) for site in ready[lost:]]
    with traced() as peak:
        table = AttemptDesk(desk, proposal)
        for player in players:
            tracemalloc.stop()  # what the site allocates is not the coordinator's
            upload, vector = masked(player, proposal)
            tracemalloc.start()
            add(table, upload, vector)
            del vector
        for player in players:
            table.add_consent(player.consent(proposal, table.survivors()))
        for player in players:
            table.add_opening(player.open(proposal, table.consents())[1])
        kept = VECTOR  # the running sum was allocated before tracing started anew
        table.total()
        with pytest.raises(ValueError, match="opened"):
            table.added  # noqa: B018 - what is opened is never written down
        return peak() + kept


def masked(player: SitePlayer, proposal: Proposal) -> tuple[Upload, Residues]:
    sent = player.mask(proposal, MODEL, np.ones(LENGTH, np.int64))
    player.forget(1)
    return sent


def add(table: AttemptDesk, upload: Upload, vector: Residues) -> None:
    table.add_upload(upload, vector.copy())


def collecting(vector: Residues, masks: Iterable[tuple[bytes, int]]) -> None:
    """What must not be done: every stream in memory at once."""
    streams = [(np.frombuffer(key_stream(key, vector.nbytes), vector.dtype), sign) for key, sign in masks]
    for stream, sign in streams:
        (np.add if sign > 0 else np.subtract)(vector, stream, out=vector)


@pytest.fixture(scope="module")
def five() -> Party:
    return party(5)


@pytest.fixture(scope="module")
def twelve() -> Party:
    return party(12)


@pytest.mark.parametrize("sites", ["five", "twelve"])
def test_a_site_masks_in_three_vectors_however_many_sites_there_are(sites: str, request: pytest.FixtureRequest) -> None:
    assert masking(request.getfixturevalue(sites)) <= 3 * VECTOR + SLACK


@pytest.mark.parametrize(("sites", "lost"), [("five", 0), ("five", 1), ("twelve", 2)])
def test_the_coordinator_opens_a_sum_in_four_vectors_however_many_sites_there_are(
    sites: str, lost: int, request: pytest.FixtureRequest
) -> None:
    assert summing(request.getfixturevalue(sites), lost) <= 4 * VECTOR + SLACK


def test_quantising_needs_no_vector_besides_its_result() -> None:
    quantizer, values = Quantizer(Ring(32), 12, ((LENGTH, 8.0),)), np.ones(LENGTH)
    with traced() as peak:
        quantizer.quantize(values, os.urandom(32))
        assert peak() <= 2 * VECTOR + SLACK


def test_who_collects_the_masks_is_noticed_at_both_ends(five: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "add_masks", collecting)
    assert masking(five) > 3 * VECTOR + SLACK
    monkeypatch.undo()
    monkeypatch.setattr(server, "add_masks", collecting)
    assert summing(five, 0) > 4 * VECTOR + SLACK
