"""What a coordinator can see of masked vectors by statistics: nothing; and with one fault in the masks these tests do.

All keys are SHAKE-256 of a name, so a test always gives the same figures. Were the keys drawn anew, an honest vector
would fail a chi-square test once in a million times, and a correlation would exceed 4 / sqrt(d) once in 16,000.
"""

import hashlib
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy.stats import chi2

from wardround.privacy.secagg import client, masks, shamir
from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.keys import pair_mask_key
from wardround.privacy.secagg.masks import add_masks, key_stream, pairwise
from wardround.privacy.secagg.ring import Ring
from wardround.privacy.secagg.session import Ready
from wardround.protocol.identity import Identity
from wardround.protocol.secagg import Proposal, Session

NAMES = ("aarau", "bergen", "cork")
LENGTH = 100_000
ALPHA = 1e-6
RING = Ring(32)
LIMIT = RING.limit(len(NAMES))
Vector = np.ndarray


def drawn(name: str, size: int = 32) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


IDENTITIES = {name: Identity(name, Ed25519PrivateKey.from_private_bytes(drawn(name))) for name in NAMES}
OPERATOR = Identity("operator", Ed25519PrivateKey.from_private_bytes(drawn("operator")))
SESSION = Session("ab" * 32, "cd" * 32, "s", tuple(each.public for each in IDENTITIES.values()), 3, 0, 32, LENGTH,
                  (1,), 2, OPERATOR.public)  # fmt: skip
READY = {
    name: Ready(
        SESSION,
        IDENTITIES[name],
        NAMES,
        {other: drawn(" ".join(sorted((name, other)))) for other in NAMES if other != name},
        {(1, attempt): drawn(f"own {name} {attempt}") for attempt in (1, 2)},
        {},
    )
    for name in NAMES
}


def proposal(attempt: int) -> Proposal:
    return Proposal(SESSION.digest, 1, attempt, NAMES, "ee" * 32, "contribution").signed_by(OPERATOR)


def masked(values: dict[str, Vector], attempt: int = 1) -> dict[str, Vector]:
    """Every site's upload."""
    asked = proposal(attempt)
    return {name: SitePlayer(READY[name]).mask(asked, asked.model_hash, values[name])[1] for name in NAMES}


def inputs(spread: int = 0) -> dict[str, Vector]:
    """Small values, as of a model's update; ``spread`` moves them between the sites and leaves every sum alone."""
    found = {}
    for name in NAMES:
        noise = np.frombuffer(drawn(f"input {name}", 2 * LENGTH), "<i2")
        found[name] = noise.astype(np.int64) * 100
    moved = np.frombuffer(drawn("moved", 2 * LENGTH), "<i2").astype(np.int64) * spread
    found["aarau"] = found["aarau"] + moved
    found["cork"] = found["cork"] - moved
    assert max(int(np.abs(each).max()) for each in found.values()) <= LIMIT
    return found


def uniform(data: bytes) -> bool:
    """Chi-square over the 256 values of a byte, two-sided: neither too uneven nor too even."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return bool(chi2.ppf(ALPHA / 2, 255) < statistic < chi2.isf(ALPHA / 2, 255))


def alike(one: bytes, other: bytes) -> bool:
    """Two-sample chi-square over bytes."""
    a, b = (np.bincount(np.frombuffer(data, np.uint8), minlength=256) for data in (one, other))
    pooled = (a + b) / 2
    statistic = float((((a - pooled) ** 2 + (b - pooled) ** 2) / pooled).sum())
    return statistic < float(chi2.isf(ALPHA, 255))


def uncorrelated(one: Vector, other: Vector) -> bool:
    """|corr| < 4 / sqrt(d), of ring elements as signed numbers."""
    a, b = (
        RING.decode(each).astype(float) if each.dtype == RING.dtype else each.astype(float) for each in (one, other)
    )
    return bool(abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a)))


def indistinguishable() -> bool:
    """Two input sets with the same sums: what goes over the wire tells them apart by none of these."""
    first, second = inputs(), inputs(spread=300)
    assert all((sum(first.values()) == sum(second.values())).ravel())
    one, two = masked(first, 1), masked(second, 2)
    return all(
        uniform(one[name].tobytes())
        and uniform(two[name].tobytes())
        and alike(one[name].tobytes(), two[name].tobytes())
        and uncorrelated(one[name], first[name])
        and uncorrelated(two[name], second[name])
        for name in NAMES
    )


def unlinkable() -> bool:
    """The same inputs at two attempts, and two sites at one: no relation between the uploads."""
    one, two = masked(inputs(), 1), masked(inputs(), 2)
    different = all(float((one[name] != two[name]).mean()) > 0.999 for name in NAMES)
    apart = all(uncorrelated(one[name], two[name]) for name in NAMES)
    return (
        different and apart and uncorrelated(one["aarau"], one["bergen"]) and uncorrelated(one["cork"], one["bergen"])
    )


def without_pair_masks() -> dict[str, Vector]:
    """What is left of each upload for who has every pair's key."""
    asked = proposal(1)
    uploads = {name: upload.copy() for name, upload in masked(inputs()).items()}
    for number, name in enumerate(NAMES, start=1):
        others = [other for other in NAMES if other != name]
        signs = pairwise(number, [NAMES.index(other) + 1 for other in others])
        keys = [pair_mask_key(READY[name].pairs[other], asked.hash) for other in others]
        add_masks(uploads[name], [(key, -sign) for key, sign in zip(keys, signs, strict=True)])
    return uploads


def closed_to_pair_keys() -> bool:
    """With every pair's key the coordinator still reads no upload: the own mask is there."""
    values = inputs()
    return all(
        uniform(rest.tobytes()) and uncorrelated(rest, values[name]) for name, rest in without_pair_masks().items()
    )


def uniform_stream() -> bool:
    return all(uniform(key_stream(drawn(f"key {k}"), 4 * LENGTH)) for k in range(4))


def test_masked_vectors_tell_two_input_sets_of_the_same_sum_not_apart() -> None:
    assert indistinguishable()


def test_the_same_inputs_give_other_bytes_that_nothing_links() -> None:
    assert unlinkable()


def test_an_upload_stays_closed_to_who_has_every_pair_key() -> None:
    assert closed_to_pair_keys()


def test_the_key_stream_is_uniform() -> None:
    assert uniform_stream()


def silent_shares() -> bool:
    """Three of five: whatever the secret, every share is uniform, and so is what two shares are opened to."""
    dealt = []
    for secret in (0, 255):
        filled = np.full((1, 50_000), secret, np.uint8)
        dealt.append(shamir.share(filled, 3, 5, drawn(f"coefficients {secret}", 100_000)))
    seen = [
        [shares[k].tobytes() for k in range(5)]
        + [shamir.reconstruct({k + 1: shares[k], j + 1: shares[j]}).tobytes() for k, j in combinations(range(5), 2)]
        for shares in dealt
    ]
    return all(uniform(one) and uniform(other) and alike(one, other) for one, other in zip(*seen, strict=True))


def test_t_minus_1_shares_are_the_same_whatever_the_secret() -> None:
    assert silent_shares()
    # Control: t shares are the secret, and t - 1 give another value.
    shares = shamir.share(np.full((1, 50_000), 255, np.uint8), 3, 5, drawn("control", 100_000))
    assert set(shamir.reconstruct({k + 1: shares[k] for k in (0, 2, 4)}).ravel().tolist()) == {255}
    assert len(set(shamir.reconstruct({k + 1: shares[k] for k in (0, 2)}).ravel().tolist())) == 256


def test_without_the_own_mask_pair_keys_read_an_upload() -> None:
    """What ``closed_to_pair_keys`` finds missing is the input itself, coordinate by coordinate."""
    values = inputs()
    with pytest.MonkeyPatch.context() as patch:
        no_own_mask(patch)
        assert all(np.array_equal(RING.decode(rest), values[name]) for name, rest in without_pair_masks().items())
    assert not any((RING.decode(rest) == values[name]).any() for name, rest in without_pair_masks().items())


def reused_key_stream(patch: pytest.MonkeyPatch) -> None:
    """A mask that does not know its attempt: one-time pads used twice."""
    patch.setattr(client, "pair_mask_key", lambda secret, asked: pair_mask_key(secret, "00"))
    patch.setattr(client, "own_mask_key", lambda secret, asked: bytes(32))


def no_own_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(client, "add_masks", lambda vector, found: add_masks(vector, found[1:]))


def biased_stream(patch: pytest.MonkeyPatch) -> None:
    """Every 64th byte of the key stream is zero."""
    stream = masks._stream

    class Biased:
        def __init__(self, key: bytes) -> None:
            self._stream = stream(key)

        def update_into(self, zeros: Any, raw: Any) -> None:
            self._stream.update_into(zeros, raw)
            np.frombuffer(raw, np.uint8)[::64] = 0

        def update(self, zeros: bytes) -> bytes:
            made = bytearray(self._stream.update(zeros))
            made[::64] = bytes(len(made[::64]))
            return bytes(made)

    patch.setattr(masks, "_stream", Biased)


def biased_coefficients(patch: pytest.MonkeyPatch) -> None:
    """Every 64th secret is shared with coefficients that are zero."""
    deal = shamir.share

    def biased(secrets: Vector, threshold: int, parties: int, randomness: bytes) -> Vector:
        spoilt = np.frombuffer(randomness, np.uint8).reshape(threshold - 1, secrets.size).copy()
        spoilt[:, ::64] = 0
        return deal(secrets, threshold, parties, spoilt.tobytes())

    patch.setattr(shamir, "share", biased)


def straight_line(patch: pytest.MonkeyPatch) -> None:
    """A polynomial of degree 1: single shares say nothing still, and two of them give the secret."""
    deal = shamir.share
    patch.setattr(
        shamir, "share", lambda secrets, t, n, random: deal(secrets, t, n, random[: len(random) // 2] + bytes(50_000))
    )


def no_masks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(client, "add_masks", lambda vector, found: None)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (reused_key_stream, unlinkable),
        (no_own_mask, closed_to_pair_keys),
        (biased_stream, uniform_stream),
        (biased_stream, indistinguishable),
        (no_masks, indistinguishable),
        (biased_coefficients, silent_shares),
        (straight_line, silent_shares),
    ],
    ids=lambda each: each.__name__,
)
def test_each_check_notices_a_fault_in_the_masks(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None], check: Callable[[], bool]
) -> None:
    assert check()
    fault(monkeypatch)
    assert not check()


@pytest.mark.parametrize("data", [bytes(range(256)) * 2000, bytes(300_000), b"\x01\x02" * 150_000])
def test_bytes_that_are_too_even_or_not_even_at_all_are_not_called_uniform(data: bytes) -> None:
    assert not uniform(data)
