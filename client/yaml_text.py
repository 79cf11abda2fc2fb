"""YAML that a person writes for a site, read so that no text of it can do more than be refused."""

from typing import Any

import yaml


def load_yaml(text: str | bytes) -> Any:
    """What ``text`` says, or ``yaml.YAMLError``: a date of month 99, a bare ``0x_`` or a thousand brackets too."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise
    # PyYAML's constructors raise whatever a value leads them to, and quote it.
    except Exception:
        raise yaml.YAMLError("no YAML") from None
