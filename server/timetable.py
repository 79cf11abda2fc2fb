"""When the ticks of a campaign of indicators are asked, by the coordinator's clock.

A tick is asked once it is over, and a little later: hospitals' clocks are not the coordinator's, and a hospital answers
no tick that is not over by its own. Where the plan waits for who is away, its attempts are spread over the tick that
follows, so that the last one comes before the next tick is over.
"""

from datetime import datetime, timedelta
from typing import Final

from wardround.protocol.indicators import Indicators

SETTLE: Final = timedelta(minutes=1)
"""How long after its end a tick is asked, but no more than a twentieth of it."""


def over(task: Indicators, tick: int) -> datetime:
    """When ``tick`` is over, UTC."""
    return task.clock(tick + 1)


def settling(task: Indicators) -> timedelta:
    """How long after its end a tick is asked."""
    return min(SETTLE, task.lasts / 20)


def due(task: Indicators, tick: int, attempt: int, attempts: int) -> datetime:
    """When ``attempt``, of at most ``attempts``, at ``tick`` is asked, UTC."""
    return over(task, tick) + settling(task) + (attempt - 1) * (task.lasts / attempts)
