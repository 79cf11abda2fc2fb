"""The picture of ``benchmarks/simulate.py``: seconds a round against sites, both logarithmic, an SVG by matplotlib.

Every simulator has a mark and a dash of its own and is named beside its last mark: colour carries nothing alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

NAMES: Final = {
    "ours": ("Wardround", "#0a5b86", "o", "-"),
    "vmap": ("bare vmap", "#57616b", "s", "--"),
    "loop": ("PyTorch loop", "#96560a", "^", "-."),
    "pfl": ("pfl", "#7a2f6b", "D", ":"),
    "flower": ("Flower on Ray", "#2f6b34", "v", (0, (5, 1, 1, 1, 1, 1))),
}


def lines_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """By simulator: (sites, seconds a round), rising."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        words, _, name = row["case"].partition(" sites, ")
        if row["metric"] == "time per round" and name in NAMES:
            lines[name].append((int(words), row["value"]))
    return {name: sorted(points) for name, points in lines.items()}


def draw(rows: Sequence[dict[str, Any]], target: Path, words: str) -> None:
    """Write the picture; ``words`` say how it was measured."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"font.size": 10, "svg.fonttype": "path", "svg.hashsalt": "wardround"}
    figure, axes = pyplot.subplots(figsize=(7.6, 4.4))
    for name, points in lines_of(rows).items():
        label, colour, mark, dash = NAMES[name]
        sites, seconds = zip(*points, strict=True)
        wide = 2.4 if name == "ours" else 1.4
        axes.plot(sites, seconds, marker=mark, linestyle=dash, color=colour, linewidth=wide, markersize=6)
        axes.annotate(
            label,
            (sites[-1], seconds[-1]),
            # Left of its last mark where another line would cross the name.
            xytext=(-9, 4) if name == "flower" else (9, 0),
            textcoords="offset points",
            color=colour,
            horizontalalignment="right" if name == "flower" else "left",
            verticalalignment="center",
            fontweight="bold" if name == "ours" else "normal",
        )
    axes.set(xscale="log", yscale="log", xlim=(7, 60_000), xlabel="sites", ylabel="seconds a round")
    axes.set_xticks([10, 100, 1000, 10_000], ["10", "100", "1000", "10,000"])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color="#e6eaee")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title("A round of the same study in five simulators", loc="left", fontweight="bold")
    figure.text(0.012, 0.015, words, color="#57616b", fontsize=8)
    figure.tight_layout(rect=(0, 0.035, 1, 1))
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # no addresses of others in the file
    figure.savefig(target, metadata=nothing)
