"""What a mechanism did to one hospital's patients: necessary and sufficient for privacy accounting.

Events are stored in ledgers for ever, so a class here never changes its meaning; a new mechanism is a new class. A
better accountant can re-derive every epsilon from them in ten years (the idea of dp_accounting's ``DpEvent``).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: Literal["patient"] = "patient"
    adjacency: Literal["add_or_remove_one"] = "add_or_remove_one"


class PoissonGaussian(_Event):
    """``steps`` sums over a Poisson sample of patients, each patient clipped to norm C, plus N(0, (sigma C)^2).

    Abadi et al. 2016 (Algorithm 1), with Poisson sampling as in Mironov et al. 2019.
    """

    kind: Literal["poisson_gaussian"] = "poisson_gaussian"
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False, description="sigma, standard deviation over C")
    sampling_probability: float = Field(gt=0, le=1, description="q, for each patient, independently")
    steps: int = Field(ge=1, description="number of sums released")
    declared_patients: int = Field(ge=1, description="the public patient count that divides the sum")


class Unprotected(_Event):
    """A release without noise: its epsilon is infinite. Only a ledger that was opened for simulation admits it."""

    kind: Literal["unprotected"] = "unprotected"
    releases: int = Field(ge=1)


DpEvent = Annotated[PoissonGaussian | Unprotected, Field(discriminator="kind")]
"""Any event; parsing an unknown ``kind`` fails, it is never guessed."""
