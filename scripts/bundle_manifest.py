"""The papers of a wheelhouse: requirements with hashes, sums of all files, a script that installs without a network.

python scripts/bundle_manifest.py FOLDER
"""

import hashlib
import platform
import re
import sys
from pathlib import Path

INSTALL = """#!/bin/sh
# Install Wardround from this folder alone: sh install FOLDER [PYTHON]. Every wheel must have the hash that is listed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -lt 1 ]; then
    echo "wardround: error: no folder given" >&2
    echo "wardround: hint: sh install /opt/wardround" >&2
    exit 2
fi
if [ -e "$1" ]; then
    echo "wardround: error: '$1' exists already" >&2
    echo "wardround: hint: give each version a folder of its own, for example $1-new" >&2
    exit 1
fi
python=${2:-PYTHON_NAME}
made_for="PYTHON_VERSION MACHINE"
found=$("$python" -c 'import platform; print(*platform.python_version_tuple()[:2], sep=".", end=" ")
print(platform.machine())') || found="no Python"
if [ "$found" != "$made_for" ]; then
    echo "wardround: error: these wheels are for Python $made_for; '$python' is $found" >&2
    echo "wardround: hint: sh install $1 /path/to/PYTHON_NAME" >&2
    exit 1
fi
(cd "$here" && sha256sum --quiet --strict --check SHA256SUMS) || {
    echo "wardround: error: a file is not the one that was listed" >&2
    echo "wardround: hint: copy the folder again; if that does not help, ask who made it" >&2
    exit 1
}
"$python" -m venv "$1"
PIP_CONFIG_FILE=/dev/null "$1/bin/python" -m pip --disable-pip-version-check install --no-index --no-cache-dir \\
    --find-links "$here" --require-hashes --no-deps --only-binary :all: --requirement "$here/requirements.txt"
echo "installed: $1/bin/wardround"
"""


def requirement(wheel: Path) -> str:
    """One line of requirements: the wheel's name (PEP 503), its version (PEP 427) and its hash."""
    name, version = wheel.name.split("-")[:2]
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version} --hash=sha256:{sha256(wheel)}"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write requirements.txt, install and SHA256SUMS into ``folder``: wheels, one of each distribution, and no more."""
    others = sorted(file.name for file in folder.iterdir() if file.suffix != ".whl")
    if others:
        raise SystemExit(f"wardround: error: not a wheel: {others[0]}\nwardround: hint: begin with an empty folder")
    wheels = sorted(folder.glob("*.whl"))
    lines = [requirement(wheel) for wheel in wheels]
    names = [line.partition("==")[0] for line in lines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SystemExit(f"wardround: error: two wheels of {twice[0]}\nwardround: hint: begin with an empty folder")
    (folder / "requirements.txt").write_text("".join(line + "\n" for line in lines))
    version = ".".join(platform.python_version_tuple()[:2])
    text = INSTALL.replace("PYTHON_NAME", f"python{version}")
    (folder / "install").write_text(text.replace("PYTHON_VERSION", version).replace("MACHINE", platform.machine()))
    listed = [*wheels, folder / "requirements.txt", folder / "install"]
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(file)}  {file.name}\n" for file in listed))


if __name__ == "__main__":
    write_manifest(Path(sys.argv[1]))
