"""What a coordinator and c sites can ever work out of the openings they are given, by exhaustion over small consortia.

A model of the rules on docs/secure-aggregation.md, without cryptography: masks are unknowns, an opening makes some of
them known, and a sum of uploads is readable if every unknown in it cancels. Every way in which honest sites can be led
is played, with the corrupted ones saying whatever helps.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, product

import pytest

from wardround.protocol.secagg import colluding, threshold

Site = int
Group = frozenset[Site]
Act = tuple[str, Group]
NOTHING: Act = ("nothing", frozenset())


def acts(site: Site, n: int, t: int) -> list[Act]:
    """What an honest site may be led to in an attempt that was proposed to n sites.

    It opens the list that lacks nobody by its own word, and any other one once t have signed it.
    """
    lists = [frozenset(chosen) for size in range(t, n + 1) for chosen in combinations(range(n), size)]
    signed = [("signs", each) for each in lists if site in each and len(each) < n]
    return [NOTHING, ("opens", frozenset(range(n))), *signed]


def readable(n: int, t: int, c: int, led: Sequence[Act]) -> list[Group]:
    """Over which honest sites a sum can be read that was proposed to n, when those who are not ``led`` collude.

    Of the c that collude others may stand outside: they hold shares too, and are on no list.
    """
    bad = n - len(led)
    honest = range(bad, n)
    signed = Counter(group for act, group in led if act == "signs")
    opened = {
        site: group
        for site, (act, group) in zip(honest, led, strict=True)
        if act == "opens" or (act == "signs" and signed[group] + sum(one in group for one in range(bad)) >= t)
    }
    shares = {site: c + sum(site in group for group in opened.values()) for site in honest}
    of = {site: {site} for site in honest}
    for one, other in combinations(honest, 2):
        told = any(a in opened and b not in opened[a] for a, b in ((one, other), (other, one)))
        if not told and of[one] is not of[other]:  # Their common mask is unknown: they come together or not at all.
            of[one] |= of[other]
            for site in of[other]:
                of[site] = of[one]
    groups = {frozenset(group) for group in of.values()}
    return [group for group in groups if all(shares[site] >= t for site in group)]


def every_way(n: int, t: int, c: int, outside: int = 0) -> Iterator[list[Group]]:
    for led in product(*(acts(site, n, t) for site in range(c - outside, n))):
        yield readable(n, t, c, led)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_one_sum_over_at_least_t_less_c_honest_sites_can_be_read_and_no_other(n: int) -> None:
    t, c = threshold(n), colluding(n)
    found = list(every_way(n, t, c))
    assert {len(groups) for groups in found} == {0, 1}
    assert min(len(group) for groups in found for group in groups) == t - c


@pytest.mark.parametrize("n", [4, 5, 6])
def test_a_proposal_to_fewer_gives_no_more(n: int) -> None:
    """As of a tick while somebody is away: an honest site, or one that colludes and still holds its shares."""
    t, c = threshold(n), colluding(n)
    for outside in (0, 1):
        found = list(every_way(n - 1, t, c, outside))
        assert {len(groups) for groups in found} == {0, 1}
        assert min(len(group) for groups in found for group in groups) >= t - c


def test_a_threshold_of_half_lets_two_sums_be_read() -> None:
    """The control: 2 t > n + c is what keeps a whole list that opens at once apart from a list that was signed."""
    assert any(len(groups) > 1 or any(len(group) < 3 for group in groups) for groups in every_way(5, 3, 1))


def test_lists_that_lack_somebody_give_smaller_sums_if_they_open_without_signatures() -> None:
    """The control: ten sites, three of them corrupted; three honest ones are cut off from the four others."""
    n, everybody, few = 10, frozenset(range(10)), frozenset((3, 4, 5))
    without = {3: {9}, 4: {9}, 5: {9}, 6: few, 7: few, 8: few, 9: set[Site]()}
    lists = [everybody - lacks for lacks in without.values()]
    assert few in readable(n, threshold(n), colluding(n), [("opens", each) for each in lists])
    ruled: list[Act] = [("opens" if each == everybody else "signs", each) for each in lists]
    assert readable(n, threshold(n), colluding(n), ruled) == []


@pytest.mark.parametrize("n", [3, 4])
def test_a_second_attempt_over_the_same_inputs_reads_the_same_sum_or_none(n: int) -> None:
    """Who has opened a sum signs and opens only the same list again; who has not may be led to anything."""
    t, c, readings = threshold(n), colluding(n), set()
    honest = range(c, n)
    for first in product(*(acts(site, n, t) for site in honest)):
        signed = Counter(group for act, group in first if act == "signs")

        def held(act: Act, signed: Counter[Group] = signed) -> bool:
            """Whether an honest site has opened by this."""
            kind, group = act
            return kind == "opens" or (kind == "signs" and signed[group] + sum(b in group for b in range(c)) >= t)

        again = [
            [act for act in acts(site, n, t) if act is NOTHING or not held(before) or act[1] == before[1]]
            for site, before in zip(honest, first, strict=True)
        ]
        one = readable(n, t, c, first)
        for second in product(*again):
            both = {*one, *readable(n, t, c, second)}
            assert len(both) <= 1, (first, second)
            readings |= both
    assert readings
