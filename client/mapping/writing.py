"""A proposal as the text of a ``mapping.yaml``: names that a site's table gives are quoted, and end no line."""

from collections.abc import Sequence
from typing import Any, Final

import yaml

from wardround.client.mapping.proposal import Proposed

_WIDTH: Final = 2**30
"""Letters in a line: no value is folded over two."""


class _Dumper(yaml.SafeDumper):
    """YAML's own safe writer, but that text with a sign that cannot be printed is quoted with escapes."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() and "\ufeff" not in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _flow(value: Any) -> str:
    """``value`` as YAML on one line."""
    return str(
        yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, sort_keys=False, width=_WIDTH)
    ).strip()


def one_line(text: str) -> str:
    """``text`` with every sign that cannot be printed, a line's end among them, as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def as_yaml(proposed: Sequence[Proposed], title: str) -> str:
    """The proposal as a file that can be used as it is: open columns are comments."""
    lines = [
        f"# Proposed for {one_line(title)}. Read every line before it is used;",
        "# what is not certain was left open, or is marked UNCERTAIN.",
        "columns:",
    ]
    for each in proposed:
        name = one_line(each.name)
        lines.append(f"  # {name}: {'OPEN: ' if each.is_open else ''}{one_line(each.why)}.")
        lines += [f"  # {name}: UNCERTAIN: {one_line(doubt)}." for doubt in each.doubts]
        if each.rule:
            # The brackets of a list keep YAML's signs in a key from being anything else.
            lines.append(f"  {_flow([each.name])[1:-1]}: {_flow(each.rule)}")
    if not any(each.rule for each in proposed):
        lines[2] = "columns: {}"
    return "\n".join(lines) + "\n"
