"""``wardround plugin check``: its own tests, the contract, differential privacy, and what its text reaches for.

The plugin's code runs here, on its author's or a reviewer's machine, with that person's rights: read it before.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from wardround.client.compatibility import incompatibilities
from wardround.client.plugins.capabilities import Capabilities, capabilities
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import initial_weights
from wardround.simulations.plugins.source import Source, read_source

FEATURES: Final = 7
TEST_SECONDS: Final = 600

_CONTRACT: Final = """\
from pathlib import Path
import pytest
from wardround.simulations.plugins.contract_{kind} import *  # noqa: F403
from wardround.simulations.plugins.source import read_source

@pytest.fixture(scope="module")
def source():
    return read_source(Path({path!r}))
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """Tests that were run. ``count`` of pytest's last line; ``output`` in full."""

    passed: bool
    count: str
    output: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a plugin. ``own`` None: it brings no tests (a wheel, a signed file).

    ``unfit``: why its model cannot be trained under differential privacy, empty where it can, or for a strategy.
    """

    source: Source
    digest: str
    own: Trial | None
    contract: Trial
    unfit: tuple[str, ...]
    capabilities: Capabilities

    @property
    def passed(self) -> bool:
        return self.contract.passed and not self.unfit and (self.own is None or self.own.passed)


def check_plugin(path: Path) -> Checked:
    """Check the plugin in the folder, the wheel or the signed file ``path``. Raises UsageError where it is none."""
    source = read_source(path)
    own = _trial(path / "tests", path) if (path / "tests").is_dir() else None
    kind = "strategy" if source.plugin.manifest.kind == "strategy" else "model"
    with TemporaryDirectory() as folder:
        file = Path(folder) / "test_contract.py"
        file.write_text(_CONTRACT.format(kind=kind, path=str(path.resolve())), encoding="utf-8")
        contract = _trial(file, Path(folder))
    return Checked(source, source.plugin.digest, own, contract, tuple(_unfit(source)), capabilities(source.plugin))


def _unfit(source: Source) -> list[str]:
    """As the rehearsal of a study finds it: Opacus' validator when the engine is made, and then by trying."""
    from wardround.privacy.gradients import Examples
    from wardround.simulations.plugins.local import local_strategy, local_task, task_spec

    if source.plugin.manifest.kind == "strategy":
        local_strategy(source.plugin, {})
        return []
    random = np.random.Generator(np.random.PCG64(5))
    patients = Examples(random.normal(size=(6, FEATURES)), np.ones((6, 1)), np.array([0, 0, 1, 2, 2, 3]), 4)
    try:
        task = local_task(source.plugin, task_spec(source, FEATURES, {}), FEATURES)
        return incompatibilities(task, initial_weights(task.layout, "uniform", 2), patients)
    except UsageError as error:
        return [error.message]


def _trial(tests: Path, place: Path) -> Trial:
    """Run pytest on ``tests`` in a process of its own, in ``place``."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(tests.resolve())]
    environment: dict[str, Any] = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Trial(False, f"no end after {TEST_SECONDS} s", "")
    lines = [line for line in run.stdout.splitlines() if line.strip()]
    return Trial(run.returncode == 0, lines[-1].strip("= ") if lines else "pytest did not start", run.stdout)
