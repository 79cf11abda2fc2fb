"""The console as IT starts it: its commands, its address and certificate, and what it leaves behind."""

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
import uvicorn
from _ports import free_port
from typer.testing import CliRunner

from wardround.console.cli import app
from wardround.console.web import serve
from wardround.console.web.roles import Face
from wardround.console.web.serve import check_tls
from wardround.protocol.errors import UsageError
from wardround.server.certificates import issue, own_ca

CONSOLE = [sys.executable, "-m", "wardround.console.cli"]


def run(*words: str, **environment: str) -> Any:
    return CliRunner().invoke(
        app, list(words), env={"WARDROUND_CONSOLE_PASSWORD": "four words are enough"} | environment
    )


def secret_in(text: str) -> str:
    """The TOTP secret, as the command shows it for typing."""
    found = re.search(r"type it into the app: ([A-Z2-7 ]+)", text)
    assert found is not None, text
    return found[1].replace(" ", "")


def test_accounts_are_made_listed_disabled_and_reset(new_world: Any) -> None:
    folder = str(new_world.path)
    made = run("site", "account", "add", folder, "anna", "--role", "officer")
    assert made.exit_code == 0, made.output
    first = secret_in(made.output)
    assert "█" in made.output or "▄" in made.output
    listed = run("site", "account", "list", folder).output
    assert re.search(r"^anna +officer +never logged in$", listed, re.M)
    assert first not in listed
    run("site", "account", "disable", folder, "anna")
    assert re.search(r"^anna .*DISABLED$", run("site", "account", "list", folder).output, re.M)
    second = secret_in(run("site", "account", "reset-totp", folder, "anna").output)
    assert second != first
    assert not re.search(r"^anna .*DISABLED$", run("site", "account", "list", folder).output, re.M)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("add", "anna", "--role", "boss"), "no role"),
        (("disable", "nobody"), "no account"),
        (("reset-totp", "nobody"), "no account"),
    ],
)
def test_a_wrong_account_command_ends_in_an_error_of_ours(new_world: Any, words: tuple[str, ...], fault: str) -> None:
    command, *rest = words
    found = run("site", "account", command, str(new_world.path), *rest)
    assert isinstance(found.exception, UsageError) and fault in found.exception.message


@pytest.mark.parametrize("listen", ["0.0.0.0", "10.0.0.5", "::"])
def test_an_address_that_others_reach_needs_a_certificate(listen: str) -> None:
    with pytest.raises(UsageError, match="in the clear"):
        check_tls(listen, None, None)
    assert check_tls("127.0.0.1", None, None) is False and check_tls("::1", None, None) is False


def test_half_a_certificate_and_a_name_instead_of_an_address_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    file.touch()
    for listen, certificate, key in (
        ("127.0.0.1", file, None), ("127.0.0.1", file, tmp_path / "no"), ("hub.example.org", file, file)
    ):  # fmt: skip
        with pytest.raises(UsageError):
            check_tls(listen, certificate, key)
    assert check_tls("0.0.0.0", file, file) is True


@pytest.mark.parametrize("tls", [False, True])
def test_the_command_serves_a_login_and_logs_no_text_of_a_user(new_world: Any, tmp_path: Path, tls: bool) -> None:
    secret = secret_in(run("site", "account", "add", str(new_world.path), "anna", "--role", "officer").output)
    port, more, trust = free_port(), [], True
    if tls:
        more, trust = certificates(tmp_path)
    command = [*CONSOLE, "site", "console", str(new_world.path), "--port", str(port), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet())
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, verify=trust, headers={"origin": url}, trust_env=False) as client:
            first = wait_for(client, process)
            assert first.status_code == 303
            assert ("strict-transport-security" in first.headers) is tls
            if tls:
                assert client.get("/login", follow_redirects=True).status_code == 200
                token = csrf(client.get("/login").text)
                login = {"name": "anna", "password": "four words are enough", "csrf": token}
                assert client.post("/login?secret=4711", data=login).headers["location"] == "/login/code"
                code = {"code": pyotp.TOTP(secret).now(), "csrf": csrf(client.get("/login/code").text)}
                assert client.post("/login/code", data=code).headers["location"] == "/"
                assert "Overview" in client.get("/?patient=4711").text
        with httpx.Client(base_url=url, verify=trust, trust_env=False) as stranger:
            assert stranger.get("/", headers={"host": "evil.example"}).status_code == 400
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert "Traceback" not in said
    log = new_world.path / "logs" / "console.log"
    assert log.stat().st_mode & 0o077 == 0 or log.parent.stat().st_mode & 0o077 == 0
    text = log.read_text()
    assert "GET / 303" in text
    if tls:
        assert "GET / 200" in text and "role=officer" in text
    for secret_text in ("4711", "anna", "four words", "evil.example"):
        assert secret_text not in text + said


def test_a_port_that_is_taken_ends_in_two_lines(new_world: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [*CONSOLE, "site", "console", str(new_world.path), "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=quiet(), check=False)
    assert ended.returncode == 2
    assert "wardround: error: the console cannot listen" in ended.stderr and "hint" in ended.stderr
    assert ended.stdout == "", "an address is named only once somebody listens there"
    assert "Traceback" not in ended.stdout + ended.stderr


def test_ctrl_c_ends_a_console_without_an_error(new_world: Any) -> None:
    command = [*CONSOLE, "site", "console", str(new_world.path), "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet()) as process:
        assert process.stdout is not None and "Ctrl-C" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_a_coordinator_has_its_console_too(hub: Any) -> None:
    listed = run("coordinator", "account", "list", str(hub.path))
    assert re.search(r"^researcher +researcher ", listed.output, re.M)
    wrong = run("coordinator", "account", "add", str(hub.path), "anna", "--role", "officer")
    assert isinstance(wrong.exception, UsageError)


HEAD_SECONDS = 1.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with the protocol that consoles are served with, of which nobody may be slow."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", HEAD_SECONDS)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await asyncio.sleep(1.5 * HEAD_SECONDS if scope["path"] == "/slow" else 0.0)
        await send({"type": "http.response.body", "body": b"ok"})

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(answer, http=serve.Impatient, lifespan="off", log_config=None, timeout_keep_alive=120)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


HEAD = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("begun", ["", "half a head", "half a second head"])
def test_who_sends_no_whole_head_is_hung_up_on(impatient: int, begun: str) -> None:
    """After the seconds for a head, which begin after this clock does; a connection at rest would be kept 120 s."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", impatient), 60) as line:
        if begun == "half a second head":
            line.sendall(HEAD % b"")
            heard = b""
            while not heard.endswith(b"ok"):
                heard += line.recv(1000)
        line.sendall(HEAD[:9] if begun else b"")
        with suppress(ConnectionResetError):
            assert line.recv(1000) == b""
        assert time.monotonic() - began > 0.9 * HEAD_SECONDS


def test_who_sends_whole_heads_is_heard_again_and_waited_for(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient), 60) as line:
        for path in (b"", b"slow", b""):
            line.sendall(HEAD % path)
            heard = b""
            while not heard.endswith(b"ok"):
                heard += line.recv(1000)
        time.sleep(1.5 * HEAD_SECONDS)
        line.sendall(HEAD % b"")
        assert line.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_console_is_served_so(new_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: served.append(server.config))
    monkeypatch.setattr(serve, "log_to", lambda folder: None)
    serve.serve(new_world.path, Face.SITE)
    assert served[0].http is serve.Impatient and served[0].limit_concurrency == 200 and not served[0].proxy_headers


def quiet() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "WARDROUND_DEBUG"}


def csrf(text: str) -> str:
    return text.split('name="csrf" value="', 1)[1].split('"', 1)[0]


def wait_for(client: httpx.Client, process: Any) -> httpx.Response:
    until = time.monotonic() + 120
    while True:
        try:
            return client.get("/")
        except httpx.TransportError:
            assert time.monotonic() < until and process.poll() is None, "the console did not start"
            time.sleep(0.1)


def certificates(folder: Path) -> tuple[list[str], ssl.SSLContext]:
    """The options for a certificate of 127.0.0.1, and what trusts its CA."""
    now = datetime.now(UTC)
    ca, ca_key = own_ca("console tests", now)
    issued = issue(ca, ca_key, "127.0.0.1", now)
    for name, content in (("chain.pem", issued.server), ("key.pem", issued.server_key)):
        (folder / name).write_bytes(content)
    return (
        ["--certificate", str(folder / "chain.pem"), "--key", str(folder / "key.pem")],
        ssl.create_default_context(cadata=ca.decode()),
    )
