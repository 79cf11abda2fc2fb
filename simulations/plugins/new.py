"""A plugin's package, as ``wardround plugin new`` writes it: it works, and is what a researcher changes."""

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError

from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.plugins import Kind, Name

_TEMPLATES: Final = Path(__file__).with_name("templates")

SUMMARIES: Final[dict[Kind, str]] = {
    "model": "A multilayer perceptron with one hidden layer.",
    "task": "A multilayer perceptron that learns by the focal loss.",
    "strategy": "FedAvg whose server takes steps of a length of its own.",
}


def new_plugin(name: str, kind: Kind, folder: Path) -> list[Path]:
    """Write the package ``name`` into ``folder / name``; returns the files.

    Raises:
        UsageError: the name is none, or the folder exists.
        Unavailable: it cannot be written.
    """
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise UsageError(f"'{name}' is no name of a plugin", "use a-z, 0-9 and '_', a letter first") from None
    templates = Environment(loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True)
    templates.trim_blocks = True
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{name}/__init__.py": f"{kind}.py.j2",
        f"tests/test_{name}.py": f"test_{kind}.py.j2",
        "tests/test_contract.py": "test_contract.py.j2",
    }
    place = folder / name
    try:
        place.mkdir()
        for path, template in files.items():
            (place / path).parent.mkdir(exist_ok=True)
            text = templates.get_template(template).render(name=name, kind=kind, summary=SUMMARIES[kind])
            (place / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise UsageError(f"'{place}' exists already", "choose another name or --folder") from None
    except OSError as error:
        raise Unavailable(f"'{place}' cannot be written: {error.strerror}", "check the folder and the disk") from None
    return [place / path for path in files]
