"""An Orthanc of one's own: a PACS with DICOMweb on loopback, with a password, stopped and deleted after.

The tests start it as the benchmarks do.
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from _ports import free_port

USER, PASSWORD = "reader", "only:read@me/ö"


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def store(self, files: Iterable[Path]) -> int:
        """Send files; returns how many were taken."""
        taken = 0
        for file in files:
            answer = requests.post(
                f"http://127.0.0.1:{self.port}/instances", data=file.read_bytes(), auth=(USER, PASSWORD.encode()),
                timeout=30,
            )  # fmt: skip
            taken += answer.status_code == 200
        return taken

    def source(self, folder: Path, **changes: object) -> Path:
        """A connection file, and its password's."""
        secret = folder / "pacs.password"
        secret.write_text(str(changes.pop("password", PASSWORD)) + "\n")
        secret.chmod(0o600)
        values = {"url": self.url, "user": USER, "password_file": secret.name}
        path = folder / "archive.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in (values | changes).items()))
        return path


def program() -> str | None:
    """Where Orthanc is; Debian keeps it outside the search path of ordinary users. None: not installed."""
    return shutil.which("Orthanc") or ("/usr/sbin/Orthanc" if Path("/usr/sbin/Orthanc").exists() else None)


@contextmanager
def running() -> Iterator[Orthanc]:
    """A server with nothing in it."""
    at = program()
    assert at is not None, "Orthanc is not installed"
    folder = Path(tempfile.mkdtemp(prefix="wardround-orthanc-"))
    port = free_port()
    settings = {
        "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": port, "HttpBindAddresses": ["127.0.0.1"], "RemoteAccessAllowed": True,
        "DicomServerEnabled": False, "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"], "HttpRequestTimeout": 20,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "OverwriteInstances": False,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([at, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        until = time.monotonic() + 30
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < until and server.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield Orthanc(port)
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
