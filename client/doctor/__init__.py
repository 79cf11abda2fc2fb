"""``wardround site doctor``: what keeps a site from working, in plain language, with one cure each.

``words`` says what a finding is and ``examined`` what is looked at. ``network`` goes the way to the coordinator;
``rights``, ``sources``, ``feeds`` and ``local`` look at this machine.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

from wardround.client.doctor import feeds, local, rights, sources
from wardround.client.doctor.examined import Examined, TableAt, examined_from
from wardround.client.doctor.network import SECONDS, check_network
from wardround.client.doctor.words import CHECKS, LOCAL, NETWORK, Finding, State, failed
from wardround.conf.said import said

__all__ = [
    "CHECKS",
    "LOCAL",
    "NETWORK",
    "Examined",
    "Finding",
    "State",
    "TableAt",
    "examined_from",
    "run_all",
    "run_cheap",
    "run_way",
]

_LOCAL_CHECKS: Final[tuple[Callable[[Examined], Iterator[Finding]], ...]] = (
    local.check_user,
    local.check_umask,
    rights.check_site_folder,
    rights.check_link_folder,
    rights.check_separation,
    local.check_ledger,
    local.check_witnesses,
    sources.check_data,
    rights.check_data_rights,
    sources.check_opt_outs,
    feeds.check_feeds,
    local.check_port,
    local.check_disk,
    local.check_memory,
    local.check_torch,
)


_CHEAP_CHECKS: Final[tuple[Callable[[Examined], Iterator[Finding]], ...]] = (
    local.check_user,
    rights.check_site_folder,
    rights.check_link_folder,
    rights.check_separation,
    partial(local.check_ledger, write=False),
    rights.check_data_rights,
    local.check_disk,
    local.check_memory,
)
"""Checks that read a few files of this machine, take no lock, open no data and start nothing."""


def run_cheap(examined: Examined) -> list[Finding]:
    """What can be seen of this machine in passing, beside a daemon that works."""
    found = list(examined.found)
    for check in _CHEAP_CHECKS:
        function = check.func if isinstance(check, partial) else check
        found += _guarded(function.__name__.removeprefix("check_"), partial(check, examined))
    return found


def run_way(
    examined: Examined, clock: Callable[[], datetime] = lambda: datetime.now(UTC), seconds: float = SECONDS
) -> list[Finding]:
    """The way to the coordinator alone, and whether both clocks agree; nothing where none is known."""
    return list(_guarded("network", partial(check_network, examined, clock, seconds)))


def run_all(
    examined: Examined, clock: Callable[[], datetime] = lambda: datetime.now(UTC), seconds: float = SECONDS
) -> list[Finding]:
    """Every finding: the way to the coordinator first, then this machine.

    A check that breaks off is a finding too; what broke it is named by its kind only. ``seconds``: until silence on
    the network counts as an answer.
    """
    found = run_way(examined, clock, seconds)
    found += examined.found
    for check in _LOCAL_CHECKS:
        found += _guarded(check.__name__.removeprefix("check_"), partial(check, examined))
    return found


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        yield failed(
            "doctor",
            said("The check '%(name)s' broke off (%(kind)s).", name=name, kind=type(error).__name__),
            "Check that this user may read the folders; if so, report this sentence as a bug.",
        )
