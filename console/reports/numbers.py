"""How numbers are written for people: metrics, intervals, epsilon, delta. One way for the page and the terminal.

An epsilon is always rounded up, so that no page promises more than the accountant found.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from wardround.console.i18n import _, marked, spoken

if TYPE_CHECKING:
    # For the checker only: a console's pages show numbers where no simulation and none of its libraries is installed.
    from wardround.simulations.result import EstimateResult, PrivacyResult

UNPROTECTED: Final = "no protection: simulation only"
NOT_ESTIMABLE: Final = "not estimable"


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric as people read it. ``higher_is_better`` None: unknown, so nothing may be called better."""

    label: str
    inside: str
    higher_is_better: bool | None
    chance: float | None = None


_METRICS: Final = {
    "accuracy": MetricName("Accuracy", "accuracy", True),
    "auroc": MetricName("AUROC", "AUROC", True, 0.5),
    "log_loss": MetricName("Log loss", "log loss", False),
    "c_index": MetricName("C-index", "c-index", True, 0.5),
    "mae": MetricName("Mean absolute error", "mean absolute error", False),
    "rmse": MetricName("Root mean squared error", "root mean squared error", False),
    "r2": MetricName("R²", "R²", True, 0.0),
    "dice": MetricName("Dice", "Dice", True),
    "dice_per_patient": MetricName("Dice per patient", "Dice per patient", True),
}


def metric_name(name: str) -> MetricName:
    """The words for a metric; a metric that a program made keeps its own name."""
    words = name.replace("_", " ")
    return _METRICS.get(name) or MetricName(words, words, None)


def decimal(value: float, digits: int = 3) -> str:
    """``value`` with a real minus sign; never a negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int = 3) -> str:
    """``value`` with its sign, for differences."""
    text = decimal(value, digits)
    return text if text.startswith("\N{MINUS SIGN}") or float(text) == 0 else f"+{text}"


def interval(estimate: "EstimateResult", digits: int = 3) -> str:
    """``0.683 to 0.846``, or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{decimal(estimate.low, digits)} to {decimal(estimate.high, digits)}"


def delta_text(delta: float) -> str:
    """A delta in full: ``0.0001``."""
    return f"{Decimal(repr(delta)):f}"


def delta_short(delta: float) -> str:
    """A delta for a narrow line: ``1e-4``."""
    mantissa, _, exponent = f"{delta:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def conditions(privacy: "PrivacyResult") -> str:
    """What must stand near every epsilon: delta, unit, adjacency, and who may collude. Empty without protection."""
    if privacy.mode == "none" or privacy.delta is None:
        return ""
    return (
        f"at δ = {delta_text(privacy.delta)}, for any one {privacy.unit} of a hospital "
        f"({privacy.adjacency}), against everyone, whoever colludes"
    )


def percent_up(share: float) -> str:
    """A share in 0..1 as a whole percentage, rounded up."""
    return f"{(Decimal(repr(share)) * 100).quantize(Decimal(1), ROUND_CEILING)} %"


def rough(value: float) -> str:
    """A noised figure as exactly as it is worth: whole from 100 on, else three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def four_digits(value: float) -> str:
    """A figure of a statistic: whole from 1,000 on, else four digits, with the reader's marks."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return marked(text, spoken()).replace("-", "\N{MINUS SIGN}")


def plural(count: int, one: str, many: str = "") -> str:
    """``1 round``, ``2 rounds``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(words: list[str]) -> str:
    """``a, b and c``."""
    return _joined(words, _("%(others)s and %(last)s"))


def choice(words: "tuple[str, ...] | list[str]") -> str:
    """``a, b or c``; nothing of nothing."""
    return _joined(words, _("%(others)s or %(last)s"))


def _joined(words: "tuple[str, ...] | list[str]", pattern: str) -> str:
    if len(words) < 2:
        return "".join(words)
    return pattern % {"others": ", ".join(words[:-1]), "last": words[-1]}
