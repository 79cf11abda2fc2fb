"""Lay .links/wardround/X -> ../../X for tools that cannot follow the import hook of an editable install.

The map is read from pyproject.toml, so there is one list. Links of folders that are gone are removed.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Make the links equal to the map; running it again changes nothing."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = config["tool"]["setuptools"]["package-dir"]
    wanted = {name.removeprefix("wardround."): Path("../..") / folder for name, folder in folders.items()}
    links = ROOT / ".links" / "wardround"
    links.mkdir(parents=True, exist_ok=True)
    for link in links.iterdir():
        if link.name not in wanted or not link.is_symlink() or link.readlink() != wanted[link.name]:
            link.unlink()
    for name, target in wanted.items():
        if not (links / name).is_symlink():
            (links / name).symlink_to(target)


if __name__ == "__main__":
    main()
