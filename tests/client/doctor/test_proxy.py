"""Through squid, a real proxy with a password that lets CONNECT to one port only, and through what looks like one."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from wardround.client.doctor import NETWORK, Examined, Finding, State
from wardround.client.doctor.network import check_network

OK, FAILED = State.OK, State.FAILED
Made = Callable[..., Examined]


def proxy_finding(what: Examined) -> Finding:
    """The finding about the proxy."""
    (found,) = [finding for finding in check_network(what, seconds=5.0) if finding.check == "proxy"]
    return found


def url(port: int) -> str:
    return f"http://{'127.0.0.1'}:{port}"


@pytest.mark.server("squid")
def test_the_way_leads_through_a_proxy_with_a_password(
    behind_squid: Any, module_authority: Any, examined: Made, walked: Any, proxy_login: tuple[str, str]
) -> None:
    squid, listener, _ = behind_squid
    user, password = proxy_login
    what = examined(
        listener.port,
        module_authority.pem,
        proxy_url=url(squid.port),
        proxy_user=user,
        proxy_password=password,
    )
    assert walked(what) == dict.fromkeys(NETWORK, OK)
    assert listener.requests
    assert f"CONNECT 127.0.0.1:{listener.port}" in squid.log.read_text()


@pytest.mark.server("squid")
def test_a_proxy_asks_for_the_password_that_is_not_there(
    behind_squid: Any, module_authority: Any, examined: Made
) -> None:
    squid, listener, _ = behind_squid
    found = proxy_finding(examined(listener.port, module_authority.pem, proxy_url=url(squid.port)))
    assert found.state is FAILED and "(407)" in found.sentence and "none is given" in found.sentence


@pytest.mark.server("squid")
def test_a_wrong_password_is_told_from_none(
    behind_squid: Any, module_authority: Any, examined: Made, proxy_login: tuple[str, str]
) -> None:
    squid, listener, _ = behind_squid
    login = {"proxy_user": proxy_login[0], "proxy_password": "wrong"}
    found = proxy_finding(examined(listener.port, module_authority.pem, proxy_url=url(squid.port), **login))
    assert found.state is FAILED and "does not accept" in found.sentence


@pytest.mark.server("squid")
def test_a_port_that_the_proxy_forbids_is_named(
    behind_squid: Any, module_authority: Any, examined: Made, walked: Any, proxy_login: tuple[str, str]
) -> None:
    squid, _, forbidden = behind_squid
    login = {"proxy_user": proxy_login[0], "proxy_password": proxy_login[1]}
    what = examined(forbidden.port, module_authority.pem, proxy_url=url(squid.port), **login)
    found = proxy_finding(what)
    assert found.state is FAILED and f"port {forbidden.port} (403)" in found.sentence
    assert walked(what) == {"dns": OK, "connection": OK, "proxy": FAILED}
    assert forbidden.connections == 0


@pytest.mark.server("squid")
def test_a_coordinator_that_is_down_behind_the_proxy_is_told_from_a_forbidden_one(
    module_authority: Any, examined: Made, start_squid: Any, proxy_login: tuple[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    squid = start_squid(port)
    login = {"proxy_user": proxy_login[0], "proxy_password": proxy_login[1]}
    found = proxy_finding(examined(port, module_authority.pem, proxy_url=url(squid.port), **login))
    assert "does not reach" in found.sentence and "(503)" in found.sentence


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n", "kind of log-in"),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", "none is given"),
        (b"HTTP/1.1 405 No\r\n\r\n", "forbids"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "does not reach"),
        (b"HTTP/1.0 302 Found\r\nLocation: x\r\n\r\n", "status 302"),
        (b"220 mail.example.org\r\n\r\n", "no HTTP proxy"),
        (b"", "no HTTP proxy"),
    ],
)
def test_what_a_proxy_answers_is_put_into_words(
    answer: bytes, words: str, authority: Any, serve: Any, examined: Made
) -> None:
    stand_in = serve(None, lambda: answer)
    found = proxy_finding(examined(443, authority.pem, proxy_url=url(stand_in.port)))
    assert found.state is FAILED and words in found.sentence
    assert stand_in.requests[0].startswith(b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n")


def test_a_silent_proxy_is_found(authority: Any, serve: Any, examined: Made) -> None:
    stand_in = serve(None, lambda: None, hold=5.0)
    what = examined(443, authority.pem, proxy_url=url(stand_in.port))
    (found,) = [finding for finding in check_network(what, seconds=0.5) if finding.check == "proxy"]
    assert "stays silent" in found.sentence


def test_a_proxy_that_nobody_runs_is_found_at_the_connection(authority: Any, examined: Made, walked: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert walked(examined(443, authority.pem, proxy_url=url(port))) == {"dns": OK, "connection": FAILED}


def test_a_proxy_whose_address_is_none_is_found(authority: Any, examined: Made, walked: Any) -> None:
    assert walked(examined(443, authority.pem, proxy_url="proxy")) == {"proxy": FAILED}


def test_the_proxy_of_the_environment_is_not_asked(
    authority: Any, serve: Any, examined: Made, walked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", url(9))
    monkeypatch.setenv("https_proxy", url(9))
    assert set(walked(examined(serve(authority.issue()).port, authority.pem)).values()) == {OK}
