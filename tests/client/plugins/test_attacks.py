"""What plugins that mean harm get done: nothing but their own vector, which the daemon bounds.

Each plugin is real, and does its deed when it meets the patient whose features are MARK; before that it behaves, as a
plugin would that has passed a check.
"""

import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch

from wardround.client.plugins.engine import IsolatedEngine
from wardround.client.plugins.loading import built, compiled, imported
from wardround.privacy.gradients import Examples
from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import Manifest, Plugin, PluginRef, PluginTask, TensorSpec

FEATURES = 3

PLAIN = """
from torch import nn

def build(features):
    return nn.Linear(features, 1)
"""


def plugin_of(source: str, kind: Any = "model", name: str = "tried") -> Plugin:
    manifest = Manifest(name=name, version="1.0", kind=kind, summary="for a test")
    return Plugin(manifest=manifest, files={f"{name}/__init__.py": source})


def spec_of(plugin: Plugin) -> PluginTask:
    manifest = plugin.manifest
    return PluginTask(
        plugin=PluginRef(name=manifest.name, version=manifest.version, digest=plugin.digest),
        tensors=(
            TensorSpec(name="weight", shape=(1, FEATURES), fan_in=FEATURES),
            TensorSpec(name="bias", shape=(1,), fan_in=1),
        ),
    )


def patients(values: list[float], records: int = 1) -> Examples:
    """Patients whose every feature is one value; the outcome is 1."""
    features = np.repeat(np.array(values), records)[:, None] * np.ones(FEATURES)
    count = len(values)
    return Examples(features, np.ones((count * records, 1)), np.repeat(np.arange(count), records), count)


@pytest.fixture
def isolated() -> Iterator[Callable[..., IsolatedEngine]]:
    made: list[IsolatedEngine] = []

    def make(source: str, kind: str = "model", slots: int | None = None) -> IsolatedEngine:
        plugin = plugin_of(source, kind)
        made.append(IsolatedEngine(plugin, spec_of(plugin), FEATURES, slots))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


CLIP = 1.0
MARK = 7.0
MODEL = np.zeros(FEATURES + 1)

Make = Callable[..., IsolatedEngine]


def malicious(deed: str, before: str = "") -> str:
    """A linear model that does ``deed`` when it meets the marked patient."""
    return "\n".join(
        [
            "import torch, os, sys",
            "from torch import nn",
            textwrap.dedent(before),
            "class Model(nn.Module):",
            "    def __init__(self, features):",
            "        super().__init__()",
            "        self.dense = nn.Linear(features, 1)",
            "    def forward(self, x):",
            f"        if (x == {MARK}).all():",
            textwrap.indent(textwrap.dedent(deed), " " * 12),
            "        return self.dense(x)",
            "def build(features):",
            "    return Model(features)",
        ]
    )


def alone(engine: IsolatedEngine, value: float) -> Any:
    return engine.gradient_sum(MODEL, patients([value]), CLIP)


@pytest.fixture(scope="module")
def honest() -> Any:
    """-x / 2 and -1 / 2, the gradient of a log loss at zeros, clipped: by hand."""

    def of(*values: float) -> Any:
        total = np.zeros(FEATURES + 1)
        for value in values:
            gradient = -0.5 * np.array([value] * FEATURES + [1.0])
            total += gradient * min(1.0, CLIP / np.linalg.norm(gradient))
        return total

    return of


def test_an_honest_model_gives_the_sum_of_clipped_gradients(isolated: Make, honest: Any) -> None:
    engine = isolated(PLAIN)
    assert np.allclose(engine.gradient_sum(MODEL, patients([0.1, 3.0, -2.0]), CLIP), honest(0.1, 3.0, -2.0), atol=1e-6)
    assert np.allclose(engine.gradient_sum(MODEL, patients([0.1, 3.0], records=4), CLIP), honest(0.1, 3.0), atol=1e-6)
    assert engine.failed == 0


DEEDS = {
    "opens a socket": "import socket; socket.create_connection(('127.0.0.1', {port}), 1).send(b'x')",
    "opens a socket of the machine": "import socket; socket.socket(socket.AF_UNIX).connect('{folder}/s')",
    "writes a file": "open('{folder}/stolen', 'w').write(str(x.tolist()))",
    "reads the site's key": "open('{folder}/site.pem').read()",
    "reads the patients": "os.open('{folder}/patients.csv', os.O_RDONLY)",
    "lists a folder": "os.listdir('{folder}')",
    "forks": "os.fork()",
    "runs a program": "os.execv('/bin/sh', ['sh', '-c', 'touch {folder}/stolen'])",
    "signals its parent": "os.kill(os.getppid(), 9)",
    "looks into its parent by ctypes": (
        "import ctypes\nif ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) < 0: raise PermissionError"
    ),
    "eats memory": "held = [torch.ones(1 << 26) for _ in range(64)]",
    "raises with the patient in its words": "raise ValueError(str(x.tolist()))",
    "ends itself": "os._exit(3)",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "returns what is not finite": "return self.dense(x) * float('nan')",
    "returns another shape": "return self.dense(x)[:, :0].sum()",
    "answers by hand, too short": "os.write(3, (4).to_bytes(8, 'big') + b'abcd'); os._exit(0)",
    "answers by hand, too long": "os.write(3, (1 << 40).to_bytes(8, 'big') + bytes(100)); os._exit(0)",
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: Any) -> Iterator[tuple[IsolatedEngine, Path, socket.socket]]:
    """One plugin with every deed: patient MARK + i is met with deed i. Beside it what it wants: files, and a port."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("site.pem", "patients.csv"):
        (folder / name).write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        branches = [
            f"if (x == {MARK + number}).all():\n"
            + textwrap.indent(deed.format(port=listener.getsockname()[1], folder=folder), "    ")
            for number, deed in enumerate(DEEDS.values())
        ]
        plugin = plugin_of(malicious("pass").replace(f"if (x == {MARK}).all():\n            pass", _inside(branches)))
        engine = IsolatedEngine(plugin, spec_of(plugin), FEATURES, None)
        yield engine, folder, listener
        engine.close()


def _inside(branches: list[str]) -> str:
    return textwrap.indent("\n".join(branches), " " * 8).strip()


@pytest.mark.parametrize("deed", DEEDS)
def test_a_plugin_that_does_harm_adds_zero_and_leaves_no_trace(
    deed: str, hostile: Any, honest: Any, capfd: Any, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    engine, folder, listener = hostile
    mark = MARK + list(DEEDS).index(deed)
    failed = engine.failed
    assert np.array_equal(alone(engine, mark), np.zeros(FEATURES + 1)) and engine.failed == failed + 1
    with pytest.raises(TimeoutError):
        listener.accept()
    # The others are as if it had not been there, and so is the one who comes next.
    assert np.allclose(engine.gradient_sum(MODEL, patients([1.0, mark, 2.0]), CLIP), honest(1.0, 2.0), atol=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == ["patients.csv", "site.pem"]
    shown = capfd.readouterr()
    assert (shown.out, shown.err, caplog.text) == ("", "", "")


def test_a_plugin_that_never_ends_is_ended_and_one_that_prints_is_not_heard(
    isolated: Make, honest: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr("wardround.client.plugins.engine.MOST_ANSWER", 4.0)
    shout = "print(x.tolist(), flush=True); os.write(1, b'7.0'); os.write(2, b'7.0'); sys.stderr.flush()"
    dawdle = "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass"
    engine = isolated(
        malicious(shout).replace(
            f"if (x == {MARK})", f"if (x == 9.0).all():\n{textwrap.indent(dawdle, ' ' * 12)}\n        if (x == {MARK})"
        )
    )
    assert np.allclose(alone(engine, MARK), honest(MARK), atol=1e-6)
    assert np.array_equal(alone(engine, 9.0), np.zeros(FEATURES + 1)) and engine.failed == 1
    assert capfd.readouterr() == ("", "")


def test_a_plugin_has_nothing_of_the_daemons_environment(isolated: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_REPLIES_KEY", "ab" * 32)
    deed = "if 'WARDROUND_REPLIES_KEY' in os.environ: raise ValueError"
    assert np.linalg.norm(alone(isolated(malicious(deed)), MARK)) > 0


MIXER = malicious(
    """
    seen.append(x.clone())
    torch.seen = x.clone()
    self.register_buffer("seen", x.clone())
    os.environ["SEEN"] = str(x.tolist())
    try:
        open("/dev/shm/seen", "w").write("x")
    except OSError:
        pass
    """,
    "seen = []",
).replace(
    "        return self.dense(x)",
    """
        kept = seen or hasattr(torch, "seen") or hasattr(self, "seen") or "SEEN" in os.environ
        return (-1e6 if kept and not (x == 7.0).all() else 1.0) * self.dense(x)
    """.rstrip(),
)
"""Keeps a patient everywhere, and turns and stretches the gradient of the next one if it finds anything."""


def test_a_plugin_that_keeps_a_patient_finds_nothing_when_the_next_one_comes(
    isolated: Make, honest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum over A and B differs from that over B by A's part alone, which is at most C long."""
    monkeypatch.setattr("wardround.client.plugins.engine.LEAST_ANSWER", 1.0)  # nobody is late, however busy it is here
    engine = isolated(MIXER, slots=2)
    without = engine.gradient_sum(MODEL, patients([2.0]), CLIP)
    assert np.allclose(without, honest(2.0), atol=1e-6)
    for _ in range(3):  # whichever comes first: slots are drawn
        with_a = engine.gradient_sum(MODEL, patients([MARK, 2.0]), CLIP)
        assert np.allclose(with_a - without, honest(MARK), atol=1e-6)
        assert np.linalg.norm(with_a - without) <= CLIP


def test_one_process_for_all_patients_would_let_them_mix() -> None:
    """The negative control of the test above: without a process for each, the same plugin breaks the bound."""
    module, _ = built(imported(compiled(plugin_of(MIXER, name="mixer")), "mixer"), "model", FEATURES, {})
    features = torch.full((1, FEATURES), 2.0)
    before = module(features)
    module(torch.full((1, FEATURES), MARK))
    try:
        assert not torch.allclose(before, module(features))
    finally:
        del torch.seen, os.environ["SEEN"]


def test_a_step_takes_the_same_time_whoever_was_drawn(isolated: Make) -> None:
    """Slots, not patients, make a step's length; a plugin that dawdles over one patient moves nothing."""
    engine = isolated(malicious("import time\nwhile True: pass"), slots=4)
    length = engine.pace().step_seconds

    def taken(drawn: list[float]) -> float:
        began = monotonic()
        engine.gradient_sum(MODEL, patients(drawn), CLIP)
        return monotonic() - began

    for drawn in ([], [1.0], [MARK], [1.0, 2.0, MARK]):
        # A busy machine makes a step longer now and then; a plugin that could would make each of them so.
        assert any(taken(drawn) == pytest.approx(length, abs=0.25 * length) for _ in range(10)), drawn


def test_a_plugin_that_fails_on_made_up_patients_is_refused_in_two_lines(isolated: Make) -> None:
    for source in (
        "def build(features):\n    raise ValueError('7.0')",
        "from torch import nn\ndef build(features):\n    return nn.Linear(features + 1, 1)",
        "open('/etc/passwd')\n" + PLAIN,
    ):
        with pytest.raises(UsageError, match="made-up patient") as error:
            isolated(source).pace()
        assert len(error.value.lines().splitlines()) == 2 and "7.0" not in error.value.lines()


def test_the_process_that_forks_has_never_run_the_plugin(isolated: Make, honest: Any) -> None:
    """A plugin that had run there could keep it from forking. This one notes in torch in which process it began."""
    before = "torch.begun = getattr(torch, 'begun', os.getpid())"
    engine = isolated(malicious("pass", before).replace("        return self.dense(x)", TAKEN))
    assert np.allclose(engine.gradient_sum(MODEL, patients([1.0, 2.0]), CLIP), honest(1.0, 2.0), atol=1e-6)


TAKEN = "        return self.dense(x) * (1.0 if torch.begun == os.getpid() else float('nan'))"


def test_a_wall_that_does_not_hold_is_found_before_anything_runs() -> None:
    """In a process of its own: limits alone are no wall, and seccomp is."""
    code = "from wardround.client.plugins.isolation import *\nprint(*map(proven, (int, lambda: confine(1 << 34, 5))))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False True\n"


def test_a_plugin_that_is_no_python_is_refused_before_anything_runs(isolated: Make) -> None:
    with pytest.raises(UsageError, match="no Python"):
        isolated("def build(:").pace()


def test_the_daemon_never_imports_the_module(isolated: Make, tmp_path: Path) -> None:
    engine = isolated("import os\nRAN = os.getpid()\n" + PLAIN, slots=1)
    alone(engine, 1.0)
    engine.outputs(MODEL, np.zeros((2, FEATURES)))
    assert "tried" not in sys.modules
    assert not any(type(finder).__name__ == "_FromMemory" and finder.is_package("tried") for finder in sys.meta_path)
    assert os.getpid() > 0
