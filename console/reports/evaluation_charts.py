"""The evaluation of a model while it was trained, as pictures: each figure of all test patients over the rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from wardround.console.reports.figure_charts import OF_A_CURVE, Ends, Shown, is_share, over_rounds


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure over the rounds."""

    name: str
    chart: Markup


def plots(
    looks: Sequence[tuple[int, Sequence[Shown]]], key: str = "evaluated", words: Callable[[str], str] = str
) -> list[Plot]:
    """Of all test patients together, one for each figure but those of the calibration curve.

    Args:
        looks: (round of training, figures of one query) of each look, the first first; of a void one no figures.
        words: what a figure's name is to the reader.
    """
    names: dict[str, None] = {}
    together: list[tuple[int, dict[str, Shown]]] = []
    for after, figures in looks:
        here = {figure.quantity: figure for figure in figures if set(figure.group) <= {"all"}}
        names |= dict.fromkeys(name for name in here if not name.startswith(OF_A_CURVE))
        together.append((after, here))
    return [
        Plot(
            words(name),
            over_rounds(
                f"{key}-{number}",
                words(name),
                [(after, Ends.of(here.get(name))) for after, here in together],
                share=is_share(name),
            ),
        )
        for number, name in enumerate(names, 1)
    ]
