"""What a machine tells its own operators' monitoring: a closed list of measurements, in Prometheus' text format.

A value that is not on the list, or carries other labels, is refused where it is made, so the list is the whole of what
can be read. Nobody is told anything: whoever watches this machine asks it, at an address that its operator wrote down.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from wardround.protocol.errors import Unavailable, UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One name of a list: ``labels`` are the labels that its values carry, in order."""

    name: str
    help: str
    kind: Literal["gauge", "counter"] = "gauge"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Value:
    """A value now, with the values of its measurement's labels."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


Values: TypeAlias = Callable[[], Iterable[Value]]
"""Makes the values whenever somebody asks."""

LOOPBACK: Final = "127.0.0.1"


def by_measurement(
    values: Iterable[Value], known: Mapping[str, Measurement]
) -> Iterator[tuple[Measurement, list[Value]]]:
    """``values`` in the list's order, those of one measurement together.

    Raises:
        ValueError: a value is of no measurement on the list, or carries other labels.
    """
    found: dict[str, list[Value]] = {}
    for each in values:
        if each.name not in known or len(each.labels) != len(known[each.name].labels):
            raise ValueError(f"'{each.name}' with {len(each.labels)} label(s) is not on the list of measurements")
        found.setdefault(each.name, []).append(each)
    yield from ((measurement, found[name]) for name, measurement in known.items() if name in found)


def parse_address(text: str) -> tuple[str, int]:
    """``127.0.0.1:9464`` or ``9464`` (on loopback). Raises UsageError for anything else."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise UsageError(f"'{text}' is no address for measurements", "write <port>, or <address>:<port>")
    return host or LOOPBACK, int(port)


@dataclass(slots=True)
class Monitoring:
    """Answers ``GET /metrics`` until ``stop``."""

    _server: Any
    _thread: Any

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


def serve(address: tuple[str, int], known: Mapping[str, Measurement], values: Values) -> Monitoring:
    """Begin to answer at ``address``. Port 0: any free one.

    Raises:
        Unavailable: the address is taken, or not this machine's.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(known, values))
    try:
        server, thread = start_http_server(address[1], address[0], registry)
    except OSError as error:
        raise Unavailable(
            f"measurements cannot be shown at {address[0]}:{address[1]}: {error.strerror}", "choose another address"
        ) from None
    return Monitoring(server, thread)


@dataclass(frozen=True, slots=True, eq=False)
class _Collector:
    known: Mapping[str, Measurement]
    values: Values

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        try:
            found = list(by_measurement(self.values(), self.known))
        # What it says may hold anything; whoever asks gets a status, and the log the kind of it.
        except Exception as error:
            log.error("measurements failed error=%s", type(error).__name__)
            raise RuntimeError("a defect; see the log") from None
        for measurement, values in found:
            family = kinds[measurement.kind](measurement.name, measurement.help, labels=measurement.labels)
            for each in values:
                family.add_metric(each.labels, each.value)
            yield family
