"""The way to the coordinator: each fault has one name, and a listener that is well has none.

Certificates and listeners come from the fixtures, not from the coordinator's own code; the names of the faults are
those of the module's table.
"""

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from wardround.client.doctor import NETWORK, Examined, Finding, State
from wardround.client.doctor.network import check_network, skew

OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED
Made = Callable[..., Examined]
Walked = Callable[..., dict[str, State]]


def findings(what: Examined, check: str, seconds: float = 5.0) -> Finding:
    """The one finding of ``check``."""
    (found,) = [finding for finding in check_network(what, seconds=seconds) if finding.check == check]
    return found


def test_a_listener_that_is_well_passes_every_step(authority: Any, serve: Any, examined: Made, walked: Walked) -> None:
    listener = serve(authority.issue())
    found = walked(examined(listener.port, authority.pem))
    assert found == {name: OK for name in NETWORK if name != "proxy"}
    assert [request.splitlines()[0] for request in listener.requests] == [b"GET /health HTTP/1.1"]


def test_a_name_is_looked_up_and_must_be_in_the_certificate(
    authority: Any, serve: Any, examined: Made, walked: Walked
) -> None:
    listener = serve(authority.issue(("localhost",)))
    what = examined(listener.port, authority.pem, "localhost")
    assert set(walked(what).values()) == {OK}
    assert "localhost" in findings(what, "dns").sentence


def test_nothing_is_examined_where_no_coordinator_is_known(walked: Walked) -> None:
    assert walked(Examined()) == {}


def test_a_name_that_nobody_knows_ends_the_way(authority: Any, examined: Made, walked: Walked) -> None:
    what = examined(443, authority.pem, "coordinator.invalid")
    assert walked(what) == {"dns": FAILED}
    assert "coordinator.invalid" in findings(what, "dns").sentence or "No name server" in findings(what, "dns").sentence


@pytest.mark.parametrize(("code", "word"), [(socket.EAI_AGAIN, "No name server"), (socket.EAI_NONAME, "not known")])
def test_a_silent_name_server_is_told_from_an_unknown_name(
    code: int, word: str, authority: Any, examined: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*args: object, **more: object) -> None:
        raise socket.gaierror(code, "made up")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert word in findings(examined(443, authority.pem, "coordinator.invalid"), "dns").sentence


def test_a_port_without_a_listener_refuses(authority: Any, examined: Made, walked: Walked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    what = examined(port, authority.pem)
    assert walked(what) == {"dns": OK, "connection": FAILED}
    assert "refused" in findings(what, "connection").sentence


def test_a_firewall_that_drops_packets_is_silence(
    authority: Any, examined: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*args: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    assert "drops" in findings(examined(443, authority.pem), "connection").sentence


def test_a_listener_that_drops_connections_is_found_at_tls(
    authority: Any, serve: Any, examined: Made, walked: Walked
) -> None:
    listener = serve(authority.issue(), lambda: None)
    what = examined(listener.port, authority.pem)
    assert walked(what) == {"dns": OK, "connection": OK, "tls": FAILED}
    assert "is cut" in findings(what, "tls").sentence


def test_a_listener_that_stays_silent_is_found_at_tls(authority: Any, serve: Any, examined: Made) -> None:
    listener = serve(authority.issue(), lambda: None, hold=5.0)
    assert "stays silent" in findings(examined(listener.port, authority.pem), "tls", seconds=0.5).sentence


def test_a_port_that_speaks_no_tls_is_named(authority: Any, serve: Any, examined: Made) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            connection.close()
            connection, _ = server.accept()
            connection.sendall(b"220 mail.example.org ready\r\n")
            connection.recv(4096)
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        found = findings(examined(server.getsockname()[1], authority.pem), "tls")
        thread.join()
    assert "does not speak TLS" in found.sentence


def test_an_inspecting_device_is_named_by_its_issuer_and_gets_no_request(
    authority: Any, other_authority: Any, serve: Any, examined: Made, walked: Walked
) -> None:
    listener = serve(other_authority.issue())
    what = examined(listener.port, authority.pem)
    assert walked(what) == {"dns": OK, "connection": OK, "issuer": FAILED}
    assert "'Example Inspection Appliance'" in findings(what, "issuer").sentence
    assert listener.requests == []


def test_an_issuer_cannot_write_on_the_terminal(
    authority: Any, serve: Any, examined: Made, make_authority: Callable[[str], Any]
) -> None:
    listener = serve(make_authority("Bad\x1b[2J\nname").issue())
    sentence = findings(examined(listener.port, authority.pem), "issuer").sentence
    assert sentence.isprintable() and "Bad?[2J?name" in sentence


def test_a_ca_made_anew_under_the_same_name_is_no_inspection(
    authority: Any, make_authority: Callable[[str], Any], serve: Any, examined: Made
) -> None:
    listener = serve(make_authority("Wardround CA of example").issue())
    assert "another key" in findings(examined(listener.port, authority.pem), "issuer").sentence


def test_a_certificate_that_signed_itself_is_named(
    authority: Any, serve: Any, examined: Made, self_signed: Callable[[], tuple[bytes, bytes]]
) -> None:
    listener = serve(self_signed())
    assert "signed itself" in findings(examined(listener.port, authority.pem), "issuer").sentence


@pytest.mark.parametrize(
    ("names", "words"), [((), "names no host at all"), (("other.example.org",), "other.example.org")]
)
def test_a_certificate_without_the_name_is_found_although_its_common_name_fits(
    names: tuple[str, ...], words: str, authority: Any, serve: Any, examined: Made, walked: Walked
) -> None:
    listener = serve(authority.issue(names))
    what = examined(listener.port, authority.pem)
    found = walked(what)
    assert found.pop("host-name") is FAILED
    assert found == {"dns": OK, "connection": OK, "issuer": OK, "dates": OK}
    assert words in findings(what, "host-name").sentence
    assert listener.requests == []


@pytest.mark.parametrize(("begins", "ends", "word"), [(-300, -2, "expired"), (2, 300, "is valid from")])
def test_a_certificate_out_of_its_time_is_found_and_the_clock_is_still_asked_for(
    begins: float, ends: float, word: str, authority: Any, serve: Any, examined: Made, walked: Walked
) -> None:
    listener = serve(authority.issue(begins=begins, ends=ends))
    what = examined(listener.port, authority.pem)
    found = walked(what)
    assert found.pop("dates") is FAILED
    assert set(found) == set(NETWORK) - {"proxy", "tls", "dates"} and set(found.values()) == {OK}
    assert word in findings(what, "dates").sentence


def test_an_expired_ca_is_told_from_an_expired_certificate(
    make_authority: Callable[..., Any], serve: Any, examined: Made
) -> None:
    old = make_authority("Wardround CA of example", -1)
    found = findings(examined(serve(old.issue()).port, old.pem), "dates")
    assert found.state is FAILED and "The coordinator's CA expired" in found.sentence


@pytest.mark.parametrize(("days", "state"), [(29.5, WARNING), (30.5, OK)])
def test_the_last_thirty_days_of_a_certificate_are_a_warning(
    days: float, state: State, authority: Any, serve: Any, examined: Made
) -> None:
    assert findings(examined(serve(authority.issue(ends=days)).port, authority.pem), "dates").state is state


def test_a_coordinator_that_is_not_well_is_found(authority: Any, serve: Any, examined: Made, reply: Any) -> None:
    listener = serve(authority.issue(), lambda: reply("503 Service Unavailable"))
    found = findings(examined(listener.port, authority.pem), "coordinator")
    assert found.state is FAILED and "503" in found.sentence


def test_an_answer_that_is_not_http_is_found(authority: Any, serve: Any, examined: Made, walked: Walked) -> None:
    listener = serve(authority.issue(), lambda: b"hello\r\n\r\n")
    found = walked(examined(listener.port, authority.pem))
    assert found["coordinator"] is FAILED and "clock" not in found


@pytest.mark.parametrize("ahead", [-8.0, -4.0, 8.0])
def test_the_clock_is_compared_with_the_coordinators(
    ahead: float, authority: Any, serve: Any, examined: Made, reply: Any
) -> None:
    listener = serve(authority.issue(), lambda: reply(ahead=ahead))
    found = findings(examined(listener.port, authority.pem), "clock")
    # The listener 8 s behind is this site 8 s ahead, which Flower refuses; behind is borne for five minutes.
    assert found.state is {-8.0: FAILED, -4.0: WARNING, 8.0: OK}[ahead]


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (2.9, OK),
        (3.1, WARNING),
        (4.9, WARNING),
        (5.1, FAILED),
        (-59, OK),
        (-61, WARNING),
        (-299, WARNING),
        (-301, FAILED),
    ],
)
def test_the_limits_of_the_clock_are_those_of_flower(ahead: float, state: State) -> None:
    there = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    # A date is cut to whole seconds, so on average it is half a second old.
    here = there + timedelta(seconds=ahead + 0.5)
    assert skew(format_datetime(there, usegmt=True), here).state is state


@pytest.mark.parametrize("date", [None, "", "yesterday", "Wed, 04 Mar 2026 05:06:07 -0000"])
def test_a_coordinator_that_does_not_say_the_time_is_a_warning(date: str | None) -> None:
    assert skew(date, datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)).state is WARNING


@pytest.mark.parametrize("content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_link_folder_without_a_ca_is_found(content: bytes, authority: Any, serve: Any, examined: Made) -> None:
    listener = serve(authority.issue())
    assert "no CA certificate" in findings(examined(listener.port, content), "tls").sentence


def test_the_limits_are_those_that_flower_has_today() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    from wardround.client.doctor.network import AHEAD_FAILED, BEHIND_FAILED

    assert AHEAD_FAILED == SYSTEM_TIME_TOLERANCE
    assert BEHIND_FAILED <= TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
