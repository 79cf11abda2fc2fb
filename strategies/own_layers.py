"""Layers that stay at the hospital; all others are averaged as in FedAvg. Three papers that differ in which and when:

* FedBN. Li, Jiang, Zhang, Kamp, Dou: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021,
  Algorithm 1. The weights of normalisation stay. Networks here normalise by groups, never by batch, and those that
  come with Wardround have no such weights: with them this is FedAvg.
* FedPer. Arivazhagan, Aggarwal, Singh, Choudhary: Federated Learning with Personalization Layers, 2019
  (arXiv 1912.00818), Algorithms 1 and 2. The last ``head_layers`` layers stay, and are trained with the others.
* FedRep. Collins, Hassani, Mokhtari, Shakkottai: Exploiting Shared Representations for Personalized Federated Learning,
  ICML 2021, Algorithm 1. As FedPer, but first ``head_steps`` steps of the head alone, then the others alone.

What is sent has zeros where own layers are, so the shared model stays there as it began, and is no use without a head
of one's own. Why differential privacy holds: ``strategies.personal``. When not to use them: hospitals with few
patients (a head of one's own is trained on them alone); a model for hospitals that took no part.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Layout, Ranges, Total
from wardround.strategies.base import State, Strategy, mean_update, moved
from wardround.strategies.personal import Personal

_NORM: Final = re.compile(r"(^|[._])((batch|group|layer|instance)_?)?norm\d*([._]|$)|(^|[._])[bgl]n\d*([._]|$)", re.I)


class _Averaged(Strategy):
    __slots__ = ()

    def step(self, state: State, total: Total) -> State:
        return State(moved(state.model, mean_update(total)), {}, state.terms)


@dataclass(frozen=True, slots=True)
class FedBN(_Averaged):
    name: ClassVar[str] = "fedbn"
    paper: ClassVar[str] = "Li et al. 2021, ICLR"

    def personal(self, layout: Layout) -> Personal:
        return Personal(layout.ranges({tensor.name for tensor in layout.tensors if _NORM.search(tensor.name)}))


@dataclass(frozen=True, slots=True)
class FedPer(_Averaged):
    name: ClassVar[str] = "fedper"
    paper: ClassVar[str] = "Arivazhagan et al. 2019, arXiv 1912.00818"

    head_layers: float = 1

    def __post_init__(self) -> None:
        if self.head_layers < 1 or self.head_layers != int(self.head_layers):
            raise UsageError(f"{self.name}: head_layers is a whole number from 1 on", "1 keeps the last layer")

    def personal(self, layout: Layout) -> Personal:
        return Personal(head(layout, int(self.head_layers)))


@dataclass(frozen=True, slots=True)
class FedRep(_Averaged):
    name: ClassVar[str] = "fedrep"
    paper: ClassVar[str] = "Collins et al. 2021, ICML"
    equal_steps: ClassVar[bool] = True

    head_layers: float = 1
    head_steps: float = 1

    def __post_init__(self) -> None:
        counts = (self.head_layers, self.head_steps)
        if any(count < 1 or count != int(count) for count in counts):
            raise UsageError("fedrep: head_layers and head_steps are whole numbers from 1 on", "see docs/strategies.md")

    def personal(self, layout: Layout) -> Personal:
        return Personal(head(layout, int(self.head_layers)), int(self.head_steps))


def head(layout: Layout, layers: int) -> Ranges:
    """Where the last ``layers`` layers lie: tensors of one layer share what stands before the last dot of their names.

    Raises:
        UsageError: nothing would be left to share.
    """
    names = list(dict.fromkeys(tensor.name.rpartition(".")[0] for tensor in layout.tensors))
    if layers >= len(names):
        raise UsageError(
            f"the model has {len(names)} layers and {layers} would stay at each site: nothing would be shared",
            "take a model with more layers, for example task=mlp, or another strategy",
        )
    kept = set(names[-layers:])
    return layout.ranges({tensor.name for tensor in layout.tensors if tensor.name.rpartition(".")[0] in kept})
