"""What a mechanism did to one hospital's patients: necessary and sufficient for privacy accounting.

Events are stored in ledgers for ever, so a class here never changes its meaning; a new mechanism is a new class. A
better accountant can re-derive every epsilon from them in ten years (the idea of dp_accounting's ``DpEvent``).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


class TreeGaussian(PoissonGaussian):
    """All node sums of the binary tree over ``ticks`` ticks, each plus N(0, (sigma C)^2) drawn once, released in parts.

    One sum over all patients (q = 1, one step) for the accountant: a patient moves all nodes of all levels together by
    C at most (2-norm), having at most ``contributions`` of them in the whole campaign. However many ticks are
    released, it is charged once and whole. Dwork et al. 2010; Chan, Shi and Song 2011 (``privacy.continual``).
    """

    kind: Literal["tree_gaussian"] = "tree_gaussian"  # type: ignore[assignment]
    ticks: int = Field(ge=2, le=1 << 20, description="T: releases at most, each of the nodes that close then")
    contributions: int = Field(ge=1, description="the most of any indicator that one patient makes")

    @model_validator(mode="after")
    def _one_sum(self) -> "TreeGaussian":
        if (self.sampling_probability, self.steps) != (1.0, 1):
            raise ValueError("a tree is one sum over all patients")
        return self


class Unprotected(_Event):
    """A release without noise: its epsilon is infinite. Only a ledger that was opened for simulation admits it."""

    kind: Literal["unprotected"] = "unprotected"
    releases: int = Field(ge=1)


DpEvent = Annotated[PoissonGaussian | TreeGaussian | Unprotected, Field(discriminator="kind")]
"""Any event; parsing an unknown ``kind`` fails, it is never guessed."""
