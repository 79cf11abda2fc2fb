"""Where and with what a run was made: versions, processor, threads. Nothing is looked up on a network."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from wardround.simulations.result import Environment

_PACKAGES: Final = (
    "numpy",
    "torch",
    "opacus",
    "dp-accounting",
    "pydantic",
    "cryptography",
    "safetensors",
    "hydra-core",
)


def describe_environment(threads: int, seed: int) -> Environment:
    """This machine and these versions."""
    return Environment(
        wardround=version("wardround"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_processor(),
        threads=threads,
        packages={name: found for name in _PACKAGES if (found := _version(name))},
        seed=seed,
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
