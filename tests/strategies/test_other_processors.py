"""Unlike processors agree on the model's hash: a step is + - * / and square root, element by element.

NumPy is told to do without the vector units that this processor has, in a process of its own; what comes out must be
the same bits.
"""

import os
import subprocess
import sys

import pytest

from wardround.strategies import STRATEGIES

PROGRAM = """
import hashlib, sys
from dataclasses import replace
import numpy as np
from wardround.protocol.parameters import Total
from wardround.protocol.plan import StrategySpec
from wardround.strategies import strategy_from
from wardround.strategies.base import Terms

name = sys.argv[1]
strategy = strategy_from(StrategySpec(name=name, parameters=eval(sys.argv[2])))
generator = np.random.Generator(np.random.PCG64(7))
state = replace(strategy.init(generator.normal(size=1003).astype(np.float32)), terms=Terms(0.1, 4, 800.0))
for _ in range(5):
    sizes = strategy.part_sizes(1003)
    parts = {part: generator.normal(size=size) + (100.0 if size == 1 else 0.0) for part, size in sorted(sizes.items())}
    state = strategy.step(state, Total(parts, 4))
print(hashlib.sha256(state.to_bytes()).hexdigest())
"""

FEWER = {
    "as it is": {},
    "without AVX-512": {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"},
    "without AVX2 and FMA": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
    "an old BLAS": {"OPENBLAS_CORETYPE": "Prescott", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}


def hash_of(name: str, parameters: dict[str, float], fewer: dict[str, str]) -> str:
    environment = {**os.environ, **fewer, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, repr(parameters)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PARAMETERS = {
    "fedavg": {},
    "fedprox": {"mu": 0.1},
    "fedadagrad": {"learning_rate": 0.1, "beta1": 0.0, "tau": 1e-3},
    "fedadam": {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    "fedyogi": {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    "fedavgm": {"momentum": 0.9},
    "fednova": {},
    "scaffold": {"server_rate": 1.0},
    "feddyn": {"alpha": 0.1},
    "fedbn": {},
    "fedper": {"head_layers": 1},
    "fedrep": {"head_layers": 1, "head_steps": 1},
    "ditto": {"pull": 0.1},
    "tuned": {"steps": 20},
}


def test_every_strategy_of_the_registry_is_here() -> None:
    assert set(PARAMETERS) == set(STRATEGIES)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_step_gives_the_same_bits_without_this_processors_vector_units(name: str) -> None:
    hashes = {what: hash_of(name, PARAMETERS[name], fewer) for what, fewer in FEWER.items()}
    assert len(set(hashes.values())) == 1, hashes


def test_another_input_gives_other_bits() -> None:
    assert hash_of("fedprox", {"mu": 0.1}, {}) == hash_of("fedavg", {}, {}), "their step is the same function"
    adam = PARAMETERS["fedadam"]
    assert hash_of("fedadam", adam, {}) != hash_of("fedadam", {**adam, "tau": 2e-3}, {})
