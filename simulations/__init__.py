"""Many sites in one process: the researcher's tool and the tests' fixture, on the code that runs in hospitals."""

from wardround.simulations.research import Run, patient_privacy, run

__all__ = ["Run", "patient_privacy", "run"]
