"""FedAdagrad, FedAdam, FedYogi. Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan: Adaptive Federated
Optimization, ICLR 2021, Algorithm 2. One paper, one file: the three differ in one line.

    D_t = mean update
    m_t = beta1 m_{t-1} + (1 - beta1) D_t
    w_{t+1} = w_t + eta m_t / (sqrt(v_t) + tau)
    v_t = v_{t-1} + D_t^2                                  (Adagrad)
    v_t = v_{t-1} - (1 - beta2) D_t^2 sign(v_{t-1} - D_t^2)   (Yogi)
    v_t = beta2 v_{t-1} + (1 - beta2) D_t^2                (Adam)

No bias correction, as in the paper. eta = ``learning_rate``; v_{-1} = ``initial_v`` (the paper asks for >= tau^2).
When not to use them: very few rounds with the default eta (tune it: it sets the length of a step almost alone), or
noise so strong that v_t measures the noise.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import Sums, Total, Vector
from wardround.strategies.base import State, Strategy, mean_update, moved


@dataclass(frozen=True, slots=True)
class _FedOpt(Strategy):
    paper: ClassVar[str] = "Reddi et al. 2021, ICLR"

    learning_rate: float = 0.1
    beta1: float = 0.9
    tau: float = 1e-3
    initial_v: float | None = None

    def __post_init__(self) -> None:
        in_range = 0 <= self.beta1 < 1 and self.learning_rate > 0 and self.tau > 0
        if not in_range or (self.initial_v is not None and self.initial_v < 0):
            raise UsageError(
                f"{self.name}: needs learning_rate > 0, tau > 0, 0 <= beta1 < 1 and initial_v >= 0",
                "the paper uses beta1=0.9 and tau=0.001",
            )

    def init(self, model: Vector) -> State:
        start = self.tau * self.tau if self.initial_v is None else self.initial_v
        return State(model, {"m": np.zeros(len(model)), "v": np.full(len(model), start)})

    @abstractmethod
    def second_moment(self, v: Sums, squared: Sums) -> Sums:
        """v_t from v_{t-1} and D_t^2: the line in which the three differ."""

    def step(self, state: State, total: Total) -> State:
        update = mean_update(total)
        m = self.beta1 * state.memory["m"] + (1 - self.beta1) * update
        v = self.second_moment(state.memory["v"], update * update)
        change = self.learning_rate * m / (np.sqrt(v) + self.tau)
        return State(moved(state.model, change), {"m": m, "v": v}, state.terms)


@dataclass(frozen=True, slots=True)
class FedAdagrad(_FedOpt):
    name: ClassVar[str] = "fedadagrad"

    beta1: float = 0.0

    def second_moment(self, v: Sums, squared: Sums) -> Sums:
        return v + squared


@dataclass(frozen=True, slots=True)
class _Decaying(_FedOpt):
    beta2: float = 0.99

    def __post_init__(self) -> None:
        _FedOpt.__post_init__(self)
        if not 0 <= self.beta2 < 1:
            raise UsageError(f"{self.name}: needs 0 <= beta2 < 1", "the paper uses beta2=0.99")


@dataclass(frozen=True, slots=True)
class FedYogi(_Decaying):
    name: ClassVar[str] = "fedyogi"

    def second_moment(self, v: Sums, squared: Sums) -> Sums:
        sign = (v > squared).astype(np.float64) - (v < squared).astype(np.float64)
        return v - (1 - self.beta2) * squared * sign


@dataclass(frozen=True, slots=True)
class FedAdam(_Decaying):
    name: ClassVar[str] = "fedadam"

    def second_moment(self, v: Sums, squared: Sums) -> Sums:
        return self.beta2 * v + (1 - self.beta2) * squared
