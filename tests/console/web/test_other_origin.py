"""A page of another origin, in a browser that is logged in to the console: it can read, send and frame nothing.

Another port of the same machine is the hardest neighbour: to a browser it is the same site, so the cookie is sent.
"""

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.server("chromium")

PAGE = b"""<!doctype html><title>A neighbour</title>
<form method="post"><input name="language" value="fr"><input name="csrf" value="TOKEN"></form><iframe></iframe>"""


@pytest.fixture
def neighbour() -> Iterator[int]:
    """The port of a server of somebody else on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_reads_sends_and_frames_nothing(
    name: str, world: Any, visits: Any, neighbour: int, helpers: Any
) -> None:
    with visits.page(world, "officer") as window:
        window.goto("/")
        console, token = window.evaluate("[location.origin, document.querySelector('[name=csrf]').value]")
        sent: list[tuple[str, bool]] = []
        window.on("request", lambda one: sent.append((one.url, "cookie" in one.all_headers())))
        window.goto(f"http://{name}:{neighbour}/")
        read = window.evaluate(
            "url => fetch(url, {credentials: 'include'}).then(answer => answer.text(), error => error.name)", console
        )
        blind = window.evaluate(
            "url => fetch(url, {credentials: 'include', mode: 'no-cors'}).then(answer => answer.type, e => e.name)",
            console,
        )
        assert (read, blind) == ("TypeError", "TypeError")
        window.evaluate("url => { document.querySelector('iframe').src = url; }", f"{console}/")
        window.wait_for_timeout(500)
        framed = [frame for frame in window.frames if frame.parent_frame is not None]
        assert [frame.url for frame in framed] == ["chrome-error://chromewebdata/"]
        with window.expect_navigation() as sending:
            window.evaluate(
                """([url, token]) => { const form = document.forms[0];
                form.action = url; form.csrf.value = token; form.submit(); }""",
                [f"{console}/language", token],
            )
        assert sending.value.status == 403
        assert (f"{console}/language", name == "127.0.0.1") in sent, "the browser sends the cookie to the same site"
        window.goto(f"{console}/")
        assert window.evaluate("document.documentElement.lang") == "en"
