"""The picture of ``benchmarks/utility.py``: concordance against epsilon_consortium, a panel a study, SVG by itself.

Pooled: hollow square, dotted. DIST: full circle, solid. LOCAL: hollow triangle, dashed. So they differ without colour.
Both panels have one vertical scale, so that a difference has the same height in either. Its colours follow the light or
dark scheme of whoever looks at it, on a ground of its own.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from wardround.console.reports.svg import Scale, around, dot, line, path, picture, tag, text
from wardround.privacy.accounting import rounded_up

Record = dict[str, Any]

WIDTH, HEIGHT, LEFT, GAP, PANEL = 760.0, 388.0, 52.0, 62.0, 310.0
TOP, BOTTOM = 94.0, 290.0
MODES = (("pooled", -13.0), ("dist", 0.0), ("local", 13.0))
WORDS = {
    "pooled": "pooled: all patients in one place",
    "dist": "DIST: shares of noise",
    "local": "LOCAL: all noise at each hospital",
}
TERMS = (
    "Below the marks: ε against the coordinator and 1 hospital. In brackets: ε of DIST against everyone, whoever",
    "colludes; for LOCAL and pooled both are the same. δ 0.0001, one patient of one site, add or remove one.",
)
STYLE = """
svg { --page: #ffffff; --ink: #1a2026; --muted: #57616b; --grid: #e6eaee; --rule: #b9c2ca;
  --dist: #0a5b86; --local: #96560a; font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --page: #11161a; --ink: #e7ebee; --muted: #a2adb7; --grid: #262e35;
  --rule: #4a555f; --dist: #6dbdea; --local: #e5a95b; } }
.page { fill: var(--page); } .head { fill: var(--ink); font-size: 14px; font-weight: 600; }
.label { fill: var(--ink); font-size: 12px; } .tick { fill: var(--muted); font-size: 12px; }
.grid { stroke: var(--grid); } .axis { stroke: var(--rule); }
.pooled { stroke: var(--muted); fill: none; stroke-width: 1.5; } .pooled-mark { stroke: var(--muted); fill: var(--page);
  stroke-width: 1.7; } .pooled-curve { stroke: var(--muted); fill: none; stroke-width: 1.2; stroke-dasharray: 1.5 3; }
.dist { stroke: var(--dist); fill: none; stroke-width: 1.8; } .dist-mark { stroke: var(--dist); fill: var(--dist); }
.dist-curve { stroke: var(--dist); fill: none; stroke-width: 1.4; }
.local { stroke: var(--local); fill: none; stroke-width: 1.8; } .local-mark { stroke: var(--local); fill: var(--page);
  stroke-width: 1.8; } .local-curve { stroke: var(--local); fill: none; stroke-width: 1.4; stroke-dasharray: 5 3; }
"""


def picture_of(records: Sequence[Record]) -> str:
    """An SVG file's text. Of each study its second metric, of all test patients together, is drawn."""
    shown = [record for record in records if record["metric"].endswith(", all")]
    studies = list(dict.fromkeys(record["study"] for record in shown))
    ends = [record["value"] + sign * record["half"] for record in shown for sign in (-1, 1)]
    y = Scale(*around(ends, 0.05, (0.0, 1.0)), BOTTOM, TOP)
    marks: list[Markup] = [tag("rect", width=WIDTH, height=HEIGHT, rx=8, class_="page"), *_legend()]
    for index, study in enumerate(studies):
        own = [record for record in shown if record["study"] == study]
        marks += _panel(own, study, LEFT + index * (PANEL + GAP), y)
    marks += [text(LEFT, HEIGHT - 34 + 18 * row, words, "tick") for row, words in enumerate(TERMS)]
    said = "; ".join(
        f"{r['study']}, epsilon {r['target'] or 'none'}, {r['mode']}: {r['value']:.3f} ± {r['half']:.3f}" for r in shown
    )
    style = tag("style", Markup(STYLE))
    return str(picture("utility", WIDTH, HEIGHT, "What noise costs a model", said, style, *marks)) + "\n"


def _panel(records: Sequence[Record], study: str, left: float, y: Scale) -> list[Markup]:
    targets = sorted({record["target"] for record in records if record["target"]})
    step = PANEL / (len(targets) + 1)
    at = {target: left + step * (index + 0.5) for index, target in enumerate((*targets, None))}
    metric = records[0]["metric"].removesuffix(", all")
    marks = [text(left, TOP - 16, f"{study[0].upper()}{study[1:]}: {metric}", "head")]
    for tick in y.ticks(6):
        marks.append(line(left, y(tick), left + PANEL, y(tick), "grid"))
        marks.append(text(left - 7, y(tick) + 4, f"{tick:.2f}", "tick", "end"))
    marks.append(line(left, BOTTOM, left + PANEL, BOTTOM, "axis"))
    marks.append(line(at[None] - step / 2, TOP, at[None] - step / 2, BOTTOM, "axis"))
    for target, x in at.items():
        marks.append(text(x, BOTTOM + 18, "no noise" if target is None else f"ε {target:g}", "label", "middle"))
        for record in records:
            if record["target"] == target is not None and record["mode"] == "dist":
                marks.append(text(x, BOTTOM + 36, f"({rounded_up(record['epsilon_site'])})", "tick", "middle"))
    for mode, shift in MODES:
        own = {record["target"]: record for record in records if record["mode"] == mode}
        points = [(at[target] + shift, y(own[target]["value"])) for target in targets]
        marks.append(path(points, f"{mode}-curve"))
        for target, record in own.items():
            x = at[target] + shift
            if record["half"]:
                low, high = y(record["value"] - record["half"]), y(record["value"] + record["half"])
                marks += [line(x, low, x, high, mode), *(line(x - 4, e, x + 4, e, mode) for e in (low, high))]
            marks.append(_mark(mode, x, y(record["value"])))
    return marks


def _legend() -> list[Markup]:
    marks, x = [], LEFT
    for mode, width in (("dist", 164.0), ("local", 228.0), ("pooled", 0.0)):
        marks += [path([(x, 30), (x + 28, 30)], f"{mode}-curve"), _mark(mode, x + 14, 30.0)]
        marks.append(text(x + 36, 34, WORDS[mode], "label"))
        x += width + 28
    return marks


def _mark(mode: str, x: float, y: float) -> Markup:
    if mode == "dist":
        return dot(x, y, 4.6, "dist-mark")
    if mode == "pooled":
        return tag("rect", x=x - 4.2, y=y - 4.2, width=8.4, height=8.4, class_="pooled-mark")
    return tag(
        "path", d=f"M{x:.1f} {y - 5.6:.1f}L{x + 5.4:.1f} {y + 4:.1f}L{x - 5.4:.1f} {y + 4:.1f}Z", class_="local-mark"
    )
