"""What an officer is told of a plugin's text: what it reaches for, and every line that changed."""

import pytest

from wardround.client.plugins.capabilities import capabilities
from wardround.client.plugins.engine import OVERFLOW, slots_for
from wardround.client.plugins.reading import reading
from wardround.protocol.plugins import Manifest, Plugin, PluginRef


def plugin_of(**files: str) -> Plugin:
    manifest = Manifest(name="tried", version="1", kind="model", summary="for a test")
    return Plugin(manifest=manifest, files={f"tried/{name}.py": text for name, text in files.items()})


@pytest.mark.parametrize(
    ("text", "what", "word"),
    [
        ("import socket", "network", "socket"),
        ("from urllib.request import urlopen", "network", "urllib"),
        ("import os.path as p", "files", "os"),
        ("open('x')", "files", "open"),
        ("from torch import save", "files", "save"),
        ("import torch\ntorch.load('x')", "files", "load"),
        ("import subprocess", "processes", "subprocess"),
        ("getattr(x, 'fork')()", "processes", "fork"),
        ("def f():\n    import ctypes", "native code", "ctypes"),
        ("x = __import__('so' + 'cket')", "text that becomes code", "__import__"),
        ("eval('1')", "text that becomes code", "eval"),
        ("().__class__.__base__.__subclasses__()", "text that becomes code", "__subclasses__"),
        ("def f(:", "no Python", "tried/__init__.py"),
    ],
)
def test_what_a_text_reaches_for_is_named_with_its_line(text: str, what: str, word: str) -> None:
    found = capabilities(plugin_of(__init__=text)).findings
    assert (what, word) in {(one.what, one.word) for one in found}
    assert all(one.path == "tried/__init__.py" and 1 <= one.line <= 2 for one in found)


def test_a_plain_model_reaches_for_nothing_and_the_summary_says_that_it_is_no_proof() -> None:
    found = capabilities(plugin_of(__init__="from torch import nn\nfrom tried.more import x", more="x = 1"))
    assert (found.imports, found.missing, found.findings) == (("torch",), (), ())
    assert "not a proof" in "\n".join(found.said())
    assert capabilities(plugin_of(__init__="import monai, torch")).missing == ("monai",)


def test_the_difference_names_every_line_that_changed_and_what_was_gained() -> None:
    before = plugin_of(__init__="import os\nx = 1\n", gone="y = 2\n")
    now = plugin_of(__init__="import socket\nx = 1\n", new="z = 3\n")
    ref = PluginRef(name="tried", version="1", digest=now.digest, author="ada", key="ab" * 32)
    found = reading(now, ref, before)
    assert found.before == before.digest and found.author == "ada"
    changed = [line for line in found.difference if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-import os", "+import socket", "-y = 2", "+z = 3"]
    assert found.gained == ("imports socket", "network ('socket')")
    assert found.lost == ("files ('os')", "imports os")
    whole = reading(now, ref, None)
    assert "+import socket" in whole.difference and "+name: tried" in whole.difference and whole.gained == ()
    assert reading(now, ref, now).difference == ()


@pytest.mark.parametrize(("declared", "q"), [(50, 0.01), (200, 0.1), (250, 0.5), (5000, 0.02), (50, 1.0), (100, 0.999)])
def test_a_step_has_slots_for_all_whom_it_draws_but_once_in_a_billion_years(declared: int, q: float) -> None:
    """Against scipy's binomial: more are drawn with a chance below the bound, and not for want of trying."""
    from scipy.stats import binom

    slots = slots_for(declared, q)
    assert binom.sf(slots, declared, q) <= OVERFLOW
    assert slots <= declared and (slots == declared or binom.sf(slots - 8, declared, q) > OVERFLOW)
