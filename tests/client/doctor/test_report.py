"""The report: what the command prints, and that nothing of it is a secret, whatever is wrong with the site."""

import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from wardround.client.doctor import CHECKS, Examined, Finding, State, examined_from, local, run_all
from wardround.console.commands.site_doctor import count, doctor_command, worst
from wardround.protocol.errors import Unavailable, UsageError

OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED
Folders = tuple[Path, Path]
PATIENT, VALUE = "p-4711-mueller", "61.73125"
PROXY_USER, PROXY_PASSWORD = "svc-ward-7", "Zebra-Quartz-19"


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is imported in a child; here that child has answered already."""
    done = subprocess.CompletedProcess([], 0, "2.9.1\n", "")
    monkeypatch.setattr(local.subprocess, "run", lambda *args, **more: done)


@pytest.fixture
def led_to(folders: Folders) -> Callable[..., None]:
    """Let the link folder lead to a port, with more settings."""

    def lead(port: int, **more: str) -> None:
        path = folders[1] / "link.json"
        about = json.loads(path.read_text()) | {"superlink": f"127.0.0.1:{port}"} | more
        path.write_text(json.dumps(about))

    return lead


def test_a_site_in_order_is_ok_on_every_line(
    folders: Folders, led_to: Any, serve: Any, authority: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    led_to(serve(authority.issue()).port)
    doctor_command(folders[0], None, False, None)
    page = capsys.readouterr().out
    assert "Site north" in page and "failed" not in page and "warning" not in page
    named = re.findall(r"^(ok|warning|failed) +([a-z-]+)", page, re.M)
    assert {name for _, name in named} == set(CHECKS) - {"proxy", "feeds", "doctor"}, "it has no proxy and no feed"
    assert f"{len(named)} ok." in page


def test_a_failed_check_is_told_with_its_cure_and_exit_code_1(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[0] / "ledger.sqlite").unlink()
    with pytest.raises(typer.Exit) as ended:
        doctor_command(folders[0], None, False, None)
    assert ended.value.exit_code == 1
    page = capsys.readouterr().out
    assert "has no ledger" in page and "Restore the folder" in page and "2 failed" in page


def test_a_warning_is_no_failure(
    folders: Folders, led_to: Any, serve: Any, authority: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    led_to(serve(authority.issue(ends=9.5)).port)
    doctor_command(folders[0], None, True, None)
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "warning" and found["format"] == "wardround/doctor/1"
    (dates,) = [finding for finding in found["findings"] if finding["check"] == "dates"]
    assert "9 days" in dates["sentence"] and dates["cure"]


def test_a_report_is_written_into_a_new_file_only(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.txt"
    with pytest.raises(typer.Exit):
        doctor_command(folders[0], None, False, out)
    page = out.read_text(encoding="utf-8")
    assert "connection" in page and "\x1b" not in page and max(map(len, page.splitlines())) <= 100
    assert "report.txt" in capsys.readouterr().out
    with pytest.raises(UsageError, match="exists already"):
        doctor_command(folders[0], None, False, folders[0] / "ledger.sqlite")
    with pytest.raises(Unavailable, match="cannot be written"):
        doctor_command(folders[0], None, False, tmp_path / "nowhere" / "report.txt")


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        doctor_command(tmp_path / "nowhere", None, False, None)
    with pytest.raises(UsageError, match="nothing to examine"):
        doctor_command(None, None, False, None)


def test_the_worst_finding_is_the_state_of_the_whole() -> None:
    fine, watch, bad = Finding("dns", OK, "a"), Finding("dns", WARNING, "a", "b"), Finding("dns", FAILED, "a", "b")
    assert worst([fine, watch, fine]) is WARNING and worst([bad, watch]) is FAILED and worst([]) is OK
    assert count([fine, bad, fine, watch]) == "1 failed, 1 warning, 2 ok."
    assert count([watch, watch]) == "2 warnings."


def test_a_check_that_breaks_off_is_a_finding_and_says_no_more_than_its_kind(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError(PROXY_PASSWORD)

    monkeypatch.setattr(local.shutil, "disk_usage", broken)
    (found,) = [finding for finding in run_all(examined_from(None, folders[0])) if finding.check == "doctor"]
    assert found.state is FAILED and "'disk'" in found.sentence and "RuntimeError" in found.sentence
    assert PROXY_PASSWORD not in found.sentence


# Each takes the site's folder and its link folder, and does something to them.
FAULTS: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda site, link: None,
    "open folders": lambda site, link: (site.chmod(0o755), link.chmod(0o755)),
    "open keys": lambda site, link: [path.chmod(0o644) for path in (*site.glob("keys/*"), link / "node_key")],
    "a key too many": lambda site, link: (link / "site.pem").write_bytes((site / "keys" / "site.pem").read_bytes()),
    "no keys": lambda site, link: [path.unlink() for path in site.glob("keys/*")],
    "no ledger": lambda site, link: (site / "ledger.sqlite").unlink(),
    "a damaged ledger": lambda site, link: (site / "ledger.sqlite").write_bytes(PATIENT.encode() * 999),
    "no data": lambda site, link: (site / f"{PATIENT}.csv").unlink(),
    "a header of one cell": lambda site, link: (site / f"{PATIENT}.csv").write_text(f"{PATIENT};{VALUE}\n"),
    "data in another encoding": lambda site, link: (site / f"{PATIENT}.csv").write_bytes(PATIENT.encode() + b"\xff"),
    "opt-outs in another form": lambda site, link: (site / "no.txt").write_text(f"{PATIENT};{VALUE}\n"),
    "opt-outs that are none": lambda site, link: (site / "no.txt").write_bytes(b"\xff" + PATIENT.encode()),
    "a value in site.yaml": lambda site, link: (site / "site.yaml").write_text(f"opt_outs: [{{kind: {PATIENT}}}]\n"),
    "a key in site.yaml": lambda site, link: (site / "site.yaml").write_text(f"{PATIENT}: {VALUE}\n"),
    "no yaml": lambda site, link: (site / "site.yaml").write_text(f"{{{PATIENT}\n"),
    "a secret in site.json": lambda site, link: (site / "site.json").write_text(f'{{"site": "{PROXY_PASSWORD}"}}'),
    "a secret in link.json": lambda site, link: (link / "link.json").write_text(f'{{"proxy": "{PROXY_PASSWORD}"}}'),
    "no CA": lambda site, link: (link / "ca.pem").write_bytes((site / "keys" / "site.pem").read_bytes()),
    "no password": lambda site, link: (link / "proxy.password").unlink(),
}


def secrets_of(site: Path, link: Path) -> dict[str, str]:
    """What must not be in a report, by name: as it is, and as somebody might have encoded it."""
    login = f"{PROXY_USER}:{PROXY_PASSWORD}"
    found = {
        "password": PROXY_PASSWORD,
        "user": PROXY_USER,
        "login": b64encode(login.encode()).decode(),
        "patient": PATIENT,
        "value": VALUE,
        "column": "secret_column",
        "folder": str(site.parent),
        "link folder": link.name,
        "home": str(Path.home()),
    }
    for path in (*site.glob("keys/*"), link / "node_key", link / "superexec.secret"):
        content = path.read_bytes()
        found[f"{path.name} in hex"] = content.hex()[:40]
        found[f"{path.name} in base64"] = b64encode(content).decode()[:40]
        text = content.decode("latin-1")
        found[path.name] = (text.splitlines()[1] if text.startswith("-----") else text)[:40]
    return found


def leaks(text: str, secrets: dict[str, str]) -> list[str]:
    """The names of the secrets that ``text`` holds, however its lines are broken."""
    joined = re.sub(r"\s+", "", text)
    return [name for name, secret in secrets.items() if re.sub(r"\s+", "", secret) in joined]


@pytest.fixture
def planted(folders: Folders, led_to: Any, serve: Any) -> tuple[Path, Path, list[bytes]]:
    """A site full of secrets, behind a proxy that does not take its password; and what the proxy was asked."""
    site, link = folders
    (site / f"{PATIENT}.csv").write_text(f"patient,secret_column\n{PATIENT},{VALUE}\n")
    (site / "no.txt").write_text(f"# ids\n{PATIENT}\n")
    (site / "site.yaml").write_text(
        f"data:\n- {{connector: csv, path: {PATIENT}.csv}}\nopt_outs:\n- {{kind: list, path: no.txt}}\nlink: {link}\n"
    )
    (link / "proxy.password").write_text(PROXY_PASSWORD + "\n")
    (link / "proxy.password").chmod(0o600)
    refusing = serve(None, lambda: b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")
    led_to(
        443,
        proxy=f"http://{'127.0.0.1'}:{refusing.port}",
        proxy_user=PROXY_USER,
        proxy_password_file="proxy.password",
    )
    return site, link, refusing.requests


@pytest.mark.parametrize("fault", FAULTS)
def test_a_report_holds_no_secret_whatever_is_wrong(
    fault: str, planted: tuple[Path, Path, list[bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, link, asked = planted
    secrets = secrets_of(site, link)
    FAULTS[fault](site, link)
    out = tmp_path / "out.txt"
    for as_json, file in ((False, None), (True, None), (False, out)):
        with pytest.raises(typer.Exit):
            doctor_command(site, link, as_json, file)
    printed = capsys.readouterr()
    # Where the report was written is for the one who asked, and stands in no report.
    shown = printed.out.replace(str(out), "")
    assert leaks(shown + printed.err + out.read_text(), secrets) == []
    assert shown.count("failed") > 2
    # Only a password that is in use could have been shown.
    assert fault != "nothing" or any(secrets["login"].encode() in request for request in asked)


def test_a_secret_in_a_report_is_found(planted: tuple[Path, Path, list[bytes]]) -> None:
    site, link, _ = planted
    secrets = secrets_of(site, link)
    assert len(secrets) == 9 + 3 * 5
    for name, secret in secrets.items():
        assert name in leaks(f"before {secret[:9]}\n   {secret[9:]} after", secrets)
    assert leaks("The proxy does not accept the user and the password (407).", secrets) == []


def test_what_is_examined_does_not_show_its_password() -> None:
    examined = Examined(proxy_user=PROXY_USER, proxy_password=PROXY_PASSWORD)
    assert PROXY_USER not in repr(examined) and PROXY_PASSWORD not in repr(examined)


ROOT = Path(__file__).resolve().parents[3]


def page_faults(text: str) -> list[str]:
    """Checks without a row on the page, and rows of checks that do not exist."""
    told = set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M))
    return [f"not told: {name}" for name in sorted(set(CHECKS) - told)] + [
        f"no such check: {n}" for n in sorted(told - set(CHECKS))
    ]


def test_the_page_tells_of_every_check() -> None:
    assert page_faults((ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")) == []


def test_a_check_that_the_page_lacks_is_found() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert page_faults(text.replace("| `clock` |", "| `clocks` |")) == ["not told: clock", "no such check: clocks"]


def test_the_command_runs_as_a_module_of_its_own_without_flower_or_torch() -> None:
    code = "import sys, wardround.console.commands.site_doctor; print({'flwr', 'torch'} & set(sys.modules))"
    done = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.communicate(timeout=60)[0] == "set()\n"
