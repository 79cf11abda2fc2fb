"""A second attempt at a round: the same answer masked again, or in mode dist another batch with noise of its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wardround.privacy.secagg.quantize import Quantizer
from wardround.protocol.ledger import BlockState
from wardround.protocol.messages import Masked

Make = Callable[..., Any]
ME = "bergen"


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The integers that were masked, in order."""
    found: list[Any] = []
    quantize = Quantizer.quantize
    monkeypatch.setattr(Quantizer, "quantize", lambda *given: found.append(quantize(*given)) or found[-1])
    return found


def answer(here: Any, desk: Any, attempt: int) -> Masked:
    proposal = here.propose(desk, 1, attempt)
    found = here.sites[ME].said("answer", here.request(1, attempt), proposal, here.plan.governance.proposed_on)
    assert isinstance(found, Masked)
    return found


def test_in_mode_local_the_stored_answer_is_masked_again_at_no_charge(consortium: Make, quantised: list[Any]) -> None:
    here = consortium(sites=4)
    desk = here.set_up()
    one, two = answer(here, desk, 1), answer(here, desk, 2)
    assert np.array_equal(quantised[0], quantised[1]) and (one.vector != two.vector).mean() > 0.99
    here.sites[ME].restart()
    three = answer(here, here.set_up("second"), 3)
    assert np.array_equal(quantised[0], quantised[2]) and (two.vector != three.vector).mean() > 0.99
    assert here.sites[ME].ledger.charged(here.plan.digest) == 1


def test_in_mode_dist_every_attempt_is_another_batch_and_another_charge(consortium: Make, quantised: list[Any]) -> None:
    """A sum that looks void may have been opened: the same answer in two sums would show it twice for one charge."""
    here = consortium(sites=4, privacy="dist")
    desk, ledger = here.set_up(), here.sites[ME].ledger
    one, again = answer(here, desk, 1), answer(here, desk, 1)
    assert np.array_equal(one.vector, again.vector) and ledger.charged(here.plan.digest, "training") == 1
    two = answer(here, desk, 2)
    assert (one.vector != two.vector).mean() > 0.99
    noise = quantised[-1].astype(float) - quantised[0]
    assert np.count_nonzero(noise) > len(noise) // 2, "the noise of the first attempt was used again"
    for domain in ("training", "consortium"):
        assert ledger.charged(here.plan.digest, domain) == 2
    states = [block.state for block in ledger.blocks()]
    assert sorted(states) == sorted([BlockState.ABANDONED, BlockState.RELEASED] * 2)


def test_in_mode_dist_attempts_end_where_grant_or_budget_do(consortium: Make) -> None:
    """However often a coordinator says that a sum was void: the officers' numbers hold."""
    here = consortium(sites=4, rounds=1, privacy="dist")
    desk, today = here.set_up(attempts=6), here.plan.governance.proposed_on
    said = [here.sites[ME].said("answer", here.request(1, n), here.propose(desk, 1, n), today) for n in range(1, 7)]
    answered = [isinstance(each, Masked) for each in said]
    assert answered == sorted(answered, reverse=True) and 1 <= sum(answered) <= 4
    assert here.sites[ME].ledger.charged(here.plan.digest, "training") == sum(answered)
    assert here.sites[ME].ledger.charged(here.plan.digest, "consortium") == sum(answered)
    assert said[-1].code == "policy"


@pytest.mark.parametrize("restarted", [False, True])
def test_in_mode_dist_an_attempt_that_was_given_up_is_never_masked_again(
    consortium: Make, quantised: list[Any], restarted: bool
) -> None:
    """Its sum may have been opened; under the name of the next attempt it could be opened in another one."""
    here = consortium(sites=4, privacy="dist")
    desk, site = here.set_up(), here.sites[ME]
    answer(here, desk, 1)
    answer(here, desk, 2)
    if restarted:
        for each in here.sites.values():
            each.restart()
        desk = here.set_up("second")
    before = len(quantised)
    refused = site.said("answer", here.request(1, 1), here.propose(desk, 1, 1), here.plan.governance.proposed_on)
    assert not isinstance(refused, Masked) and len(quantised) == before
    here.refused(ME, "given up", 1)
    assert site.ledger.charged(here.plan.digest, "training") == 2
    # The attempt that counts is still answered, and a third one is another batch.
    assert answer(here, desk, 2).attempt == 2
    answer(here, desk, 3)
    assert site.ledger.charged(here.plan.digest, "training") == 3
