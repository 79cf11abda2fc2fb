"""The units of a site and of a coordinator: what systemd itself says of them, and what it would not say."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from wardround.client.service.units import CoordinatorService, SiteService, data_folders, install, uninstall, unseen
from wardround.client.settings import DataSource, Flag, ListOfIds, SiteSettings
from wardround.protocol.errors import Unavailable, UsageError

MOST_EXPOSED = 2.5
"""Of systemd's scale from 0 (closed) to 10 (open); an ordinary service has more than 9."""

needs_systemd = pytest.mark.server("systemd-analyze")


def site_service(tmp_path: Path) -> SiteService:
    places = [tmp_path / name for name in ("north", "north-link", "exports")]
    for place in places:
        place.mkdir()
    python = Path(sys.executable)
    return SiteService("north", *places[:2], python, (places[2],), user="root", link_user="root", group="root")


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Every unit, written below a root of its own."""
    hub = tmp_path / "hub"
    hub.mkdir()
    coordinator = CoordinatorService(hub, Path(sys.executable), user="root", group="root")
    return [*install(site_service(tmp_path), tmp_path / "root"), *install(coordinator, tmp_path / "root")]


def exposure(path: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(path)], capture_output=True, text=True, check=False
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


@needs_systemd
def test_systemd_accepts_every_unit_and_finds_it_closed(units: list[Path]) -> None:
    assert [path.name for path in units] == [
        "wardround-site-north.service",
        "wardround-link-north.service",
        "wardround-coordinator.service",
    ]
    for path in units:
        verified = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
        assert (verified.returncode, verified.stderr) == (0, ""), verified.stderr
        assert exposure(path) < MOST_EXPOSED


@needs_systemd
def test_a_unit_without_its_locks_is_found_open_and_a_misspelt_one_is_not_accepted(units: list[Path]) -> None:
    unit = units[0]
    text = unit.read_text()
    unit.write_text(re.sub(r"(?m)^(Protect|Restrict|System|Capab|Private|IPAddress|NoNew).*\n", "", text))
    assert exposure(unit) > MOST_EXPOSED
    unit.write_text(text.replace("NoNewPrivileges", "NoNewPrivilege"))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert "NoNewPrivilege" in verified.stderr


def test_the_daemon_reaches_loopback_only_and_the_link_sees_neither_folder_nor_data(tmp_path: Path) -> None:
    made = site_service(tmp_path)
    daemon, link = made.units().values()
    assert "IPAddressDeny=any\nIPAddressAllow=localhost" in daemon
    assert f"ReadWritePaths={made.folder}\n" in daemon
    assert f"ReadOnlyPaths=-{made.folder / 'data'}\n" in daemon
    assert f"InaccessiblePaths={made.folder} {made.data[0]}\n" in link
    assert "IPAddressDeny" not in link, "the link alone goes out"
    usual = SiteService("north", made.folder, made.link, made.python).units().values()
    users = [re.findall(r"(?m)^User=(.*)$", text) for text in usual]
    assert users == [["wardround"], ["wardround-link"]]


@pytest.mark.parametrize("name", ["wardround-site.service", "wardround-link.service", "wardround-coordinator.service"])
def test_a_call_that_is_refused_ends_no_process(name: str) -> None:
    """Traced on a demo: an allocator calls mbind, which @resources holds; the default is to kill who calls it."""
    text = files("wardround.client.service").joinpath(name).read_text()
    assert "SystemCallFilter=~@privileged @resources\n" in text
    assert "SystemCallErrorNumber=EPERM\n" in text


def test_the_daemon_sees_the_processor_and_may_compile_kernels(tmp_path: Path) -> None:
    """Both tried: without /proc/cpuinfo torch says DEFAULT instead of AVX2; without W+X a convolution is an error."""
    daemon, link = site_service(tmp_path).units().values()
    assert not re.search(r"(?m)^(ProcSubset|MemoryDenyWriteExecute)", daemon)
    assert "MemoryDenyWriteExecute=yes\n" in link


def test_the_folders_of_all_sources_are_hidden_and_none_of_the_sites_own() -> None:
    flag = Flag(kind="column", path="/srv/consent/./flags.csv", id_column="id", flag_column="out")
    settings = SiteSettings(
        data=(
            DataSource(path="data/patients.csv"),
            DataSource(path="/srv/exports/a.csv"),
            DataSource(path="../x/b.csv"),
        ),
        opt_outs=(ListOfIds(kind="list", path="/srv/exports/out.txt"), flag),
    )
    hidden = (Path("/srv/consent"), Path("/srv/exports"), Path("/srv/sites/x"))
    assert data_folders(settings, Path("/srv/sites/north")) == hidden


@pytest.mark.parametrize("holding", ["folder", "link", "python"])
def test_data_beside_what_the_link_needs_are_refused(tmp_path: Path, holding: str) -> None:
    made = site_service(tmp_path)
    shared = getattr(made, holding).parent
    with pytest.raises(UsageError, match="holds patients' data"):
        SiteService("north", made.folder, made.link, made.python, (shared,)).units()


def test_what_a_service_would_not_see_is_named(tmp_path: Path) -> None:
    python = Path("/usr/bin/env")
    hidden = SiteService("north", Path("/run/user/7/north"), tmp_path / "none", python, (Path("/srv/no-such-place"),))
    found = list(unseen(hidden))
    assert "'/run/user/7/north' lies in '/run/user', which a service does not see" in found
    assert "'/srv/no-such-place' does not exist" in found
    assert not any("'/usr/bin/env'" in line for line in found)


def test_units_come_and_go_and_nothing_else_is_touched(tmp_path: Path) -> None:
    made = site_service(tmp_path)
    (made.folder / "ledger.sqlite").touch()
    written = install(made, tmp_path / "root")
    assert install(made, tmp_path / "root") == written
    wanted = written[0].parent / "multi-user.target.wants" / written[0].name
    wanted.parent.mkdir()
    wanted.symlink_to("../nowhere")
    other = wanted.with_name("other.service")
    other.touch()
    assert uninstall(made, tmp_path / "root") == [wanted, *written]
    assert uninstall(made, tmp_path / "root") == []
    assert (made.folder / "ledger.sqlite").exists() and other.exists()


def test_a_place_that_cannot_be_written_is_an_error_of_two_lines(tmp_path: Path) -> None:
    (tmp_path / "root").touch()
    with pytest.raises(Unavailable) as failed:
        install(site_service(tmp_path), tmp_path / "root")
    assert failed.value.hint == "run it as root"


@pytest.mark.parametrize("folder", ["relative", "/", "/srv/a folder", "/srv/50%", "/srv/$HOME", "/srv/a\nUser=root"])
def test_a_path_that_a_unit_would_misread_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UsageError):
        SiteService("north", Path(folder), tmp_path, Path(sys.executable)).units()
    with pytest.raises(UsageError):
        CoordinatorService(Path(folder), Path(sys.executable)).units()
