"""Papers from a page: made as the command line makes them, taken away as files, checked as ``report verify`` does."""

import re
import threading
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from wardround.console.paper.check import Known, check
from wardround.console.web.pages.papers import MOST_UPLOADED
from wardround.console.web.queries import papers as queries
from wardround.console.web.queries.papers import Papers

EVER = {"since": "2026-01-01", "until": "2099-12-31"}


def text_of(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def bring(client: Any, helpers: Any, content: bytes, name: str = "paper.pdf", **fields: str) -> Any:
    data = {"csrf": helpers.csrf(client, "/papers"), **fields}
    return client.post("/papers", data=data, files={"paper": (name, content, "application/pdf")})


@pytest.mark.parametrize("suffix", ["pdf", "html", "json"])
def test_a_paper_of_a_page_is_accepted_by_the_check_of_the_command_line(
    world: Any, client_as: Any, helpers: Any, suffix: str
) -> None:
    client, digest, key = client_as("auditor"), helpers.plan_of().digest, world.folder.identity().public.key
    for path, asked, kind in (
        ("/papers/study", {"study": digest, "kind": "statement"}, "statement"),
        ("/papers/study", {"study": digest, "kind": "dpia"}, "dpia"),
        ("/papers/period", EVER, "audit"),
    ):
        answer = client.get(path, params={**asked, "format": suffix})
        assert answer.status_code == 200
        name = re.fullmatch(
            rf'attachment; filename="(north-{kind}-[0-9a-f]{{12}}\.{suffix})"', answer.headers["content-disposition"]
        )
        assert name is not None and answer.headers["x-content-type-options"] == "nosniff"
        verdict = check(answer.content, Known(key=key))
        assert verdict.accepted and verdict.signed.paper.kind == kind


def test_papers_are_offered_in_english_and_french_and_made_in_no_draft(client_as: Any, helpers: Any) -> None:
    client, digest = client_as("officer"), helpers.plan_of().digest
    form = re.search(r'<select id="[\w-]+-language".*?</select>', client.get("/papers").text, re.S)
    assert form is not None and re.findall(r'value="(\w+)"', form[0]) == ["en", "fr"]
    answer = client.get("/papers/study", params={"study": digest, "format": "html", "language": "fr"})
    assert answer.status_code == 200 and "Déclaration de confidentialité" in answer.text
    assert check(answer.content, Known()).accepted
    for draft in ("de", "vi"):
        refused = client.get("/papers/study", params={"study": digest, "format": "json", "language": draft})
        assert refused.status_code == 409 and "a draft that nobody has checked" in text_of(refused)


def test_no_file_is_left_anywhere(world: Any, client_as: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = client_as("officer")
    before = sorted(path.name for path in world.path.rglob("*") if "console" not in path.name)
    assert client.get("/papers/period", params=EVER).status_code == 200
    assert sorted(path.name for path in world.path.rglob("*") if "console" not in path.name) == before
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "matplotlib" not in str(path)] == []


@pytest.mark.parametrize(
    "asked",
    [
        {"study": "../../../etc/passwd"}, {"study": "ab" * 32}, {"format": "../../x"}, {"format": "exe"},
        {"language": "../fr"}, {"language": "xx"}, {"kind": "audit"}, {"kind": "../../etc"},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_that_is_typed_reaches_a_path_or_a_name(client_as: Any, helpers: Any, asked: dict[str, str]) -> None:
    answer = client_as("officer").get("/papers/study", params={"study": helpers.plan_of().digest} | asked)
    assert answer.status_code in (400, 409)
    assert "content-disposition" not in answer.headers and "root:" not in answer.text


@pytest.mark.parametrize(
    "path", ["/papers/../site.json", "/papers/%2e%2e/keys/site.pem", "/papers/..%2fkeys%2fsite.pem"]
)
def test_no_path_leads_out_of_the_papers(client_as: Any, path: str) -> None:
    answer = client_as("officer").get(path)
    assert answer.status_code == 404 and "PRIVATE" not in answer.text and "format" not in answer.text


def test_days_that_are_none_or_turned_round_are_refused(client_as: Any) -> None:
    client = client_as("officer")
    assert client.get("/papers/period", params={"since": "2026-02-30", "until": "2026-03-01"}).status_code == 400
    assert client.get("/papers/period", params={"since": "2026-03-02", "until": "2026-03-01"}).status_code == 409
    early = client.get("/papers/period", params={"since": "2020-01-01", "until": "2020-01-02"})
    assert early.status_code == 409 and "the ledger was begun after 2020-01-02" in early.text


def test_it_sees_no_papers(client_as: Any, helpers: Any) -> None:
    client = client_as("it")
    assert 'href="/papers"' not in client.get("/").text
    for path in (
        "/papers",
        f"/papers/study?study={helpers.plan_of().digest}",
        "/papers/period?since=2026-01-01&until=2026-01-02",
    ):
        assert client.get(path).status_code == 403
    assert client.post("/papers", data={"csrf": helpers.csrf(client)}).status_code == 403


def test_an_auditor_reads_checks_and_takes_away_and_writes_nothing(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("auditor")

    def state() -> dict[str, bytes]:
        return {
            str(path.relative_to(world.path)): path.read_bytes()
            for path in sorted(world.path.rglob("*"))
            if path.is_file() and "console" not in path.name and not path.name.endswith("-shm")
        }

    before = state()
    paper = client.get("/papers/period", params={**EVER, "format": "json"}).content
    assert "All that was checked holds." in text_of(bring(client, helpers, paper))
    for path in (
        "/audit",
        "/audit?q=anna",
        "/audit/5",
        "/audit/5/content",
        "/audit/verify",
        "/audit/witnesses",
        "/patients",
    ):
        assert client.get(path).status_code == 200
    client.post("/audit/verify", data={"csrf": helpers.csrf(client, "/audit/verify")})
    while client.app.console.queries.recount.run.state == "running":
        time.sleep(0.05)
    assert state() == before


def test_what_is_found_in_a_paper_is_what_the_command_line_finds(world: Any, client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    paper = client.get("/papers/study", params={"study": helpers.plan_of().digest, "format": "html"}).content
    text = text_of(bring(client, helpers, paper, "paper.html"))
    for finding in check(paper, Known()).findings:
        assert finding.says in text
    changed = text_of(bring(client, helpers, paper.replace(b"Rounds", b"Pounds"), "paper.html"))
    assert "Do not rely on this paper." in changed and "does not say what was signed" in changed
    wrong = text_of(bring(client, helpers, paper, "paper.html", fingerprint="0000 " * 8))
    assert "Do not rely on this paper." in wrong and "fingerprint is not the one that you gave" in wrong


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"%PDF-1.7\n" + b"\xff" * 1000,
        b"{" * 100_000,
        b"<html><script>alert(9)</script>",
        b'{"content":{},"signature":"00"}',
    ],
    ids=["empty", "pdf", "deep", "html", "json"],
)
def test_a_file_that_is_no_paper_is_said_to_be_none_and_never_shown(
    client_as: Any, helpers: Any, content: bytes
) -> None:
    answer = bring(client_as("officer"), helpers, content)
    assert answer.status_code == 200 and 'class="alert alert"' in answer.text
    assert "alert(9)" not in answer.text and "All that was checked holds." not in answer.text


def test_a_file_that_is_too_large_and_a_form_without_one_are_refused(client_as: Any, helpers: Any) -> None:
    client = client_as("officer")
    assert bring(client, helpers, b"{" + b" " * MOST_UPLOADED).status_code == 413
    assert client.post(
        "/papers", data={"csrf": helpers.csrf(client, "/papers")}, files={"paper": ("p", b"{" + b" " * (1 << 20))}
    ).status_code == 413  # fmt: skip
    none = client.post("/papers", data={"csrf": helpers.csrf(client, "/papers"), "paper": "text"})
    assert "No file was chosen." in none.text
    assert bring(client, helpers, b"{}", fingerprint="0" * 101).status_code == 400


def test_a_hostile_name_of_a_file_is_never_shown(client_as: Any, helpers: Any) -> None:
    answer = bring(client_as("officer"), helpers, b"{}", "<img src=x onerror=alert(7)>.pdf")
    assert "alert(7)" not in answer.text


def test_without_the_extra_the_page_says_what_to_install(client_as: Any, monkeypatch: Any, helpers: Any) -> None:
    client = client_as("officer")
    monkeypatch.setattr(queries, "find_spec", lambda name: None if name == "fpdf" else object())
    text = text_of(client.get("/papers"))
    assert "Papers need 'fpdf'" in text and "pip install 'wardround[paper]'" in text and "Make the paper" not in text


def test_pages_answer_while_a_paper_is_made_and_a_second_one_waits_its_turn(
    world: Any, client_as: Any, monkeypatch: Any
) -> None:
    """The work stands still here, so that nothing depends on how fast this machine is."""
    client, go = client_as("officer"), threading.Event()
    run = Papers(world.path)._apart._run

    def slow(*given: Any) -> Any:
        assert go.wait(120)
        return run(*given)

    apart = client.app.console.queries.papers._apart
    monkeypatch.setattr(type(apart), "_run", lambda self, *given: slow(*given))
    answers: list[Any] = []
    other = threading.Thread(target=lambda: answers.append(client.get("/papers/period", params=EVER)))
    other.start()
    until = time.monotonic() + 60
    while not apart._one.locked():
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        second = client_as("auditor")
        assert second.get("/audit").status_code == 200 and not answers
        busy = second.get("/papers/period", params=EVER)
        assert busy.status_code == 503 and "something else is being made" in busy.text
    finally:
        go.set()
        other.join(120)
    assert answers[0].status_code == 200


def test_the_work_is_done_in_another_process_with_less_claim_on_the_processor(world: Any) -> None:
    """Had it been done here, this process would have burnt its seconds."""
    began = time.process_time()
    made = Papers(world.path).period("2026-01-01", "2099-12-31", ".pdf", "en")
    assert made.content.startswith(b"%PDF-")
    assert time.process_time() - began < 0.5


@pytest.mark.server("chromium")
def test_a_pdf_that_a_browser_downloads_is_accepted(
    world: Any, visits: Any, axe: Any, tmp_path: Path, screenshot: Any
) -> None:
    with visits.page(world, "auditor") as window:
        window.goto("/papers")
        with window.expect_download() as download:
            window.click("text=Make the audit report")
        file = tmp_path / "paper.pdf"
        download.value.save_as(file)
        assert re.fullmatch(r"north-audit-[0-9a-f]{12}\.pdf", download.value.suggested_filename)
        assert check(file.read_bytes(), Known(key=world.folder.identity().public.key)).accepted
        window.set_input_files("#paper", file)
        window.click("text=Check the paper")
        window.wait_for_selector("text=All that was checked holds.")
        screenshot(window, "papers-checked")
        assert axe(window) == [] and window.faults == []
