"""The picture of ``benchmarks/site_benefit.py``: differences to the own model, a panel a hospital, SVG by itself.

Without privacy: hollow square, dotted. Epsilon 3: full circle, solid. So they differ without colour. A dashed line is
no difference. All panels have one scale. Colours follow the light or dark scheme of whoever looks at it.
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from wardround.console.reports.svg import Scale, around, dot, line, picture, tag, text, tick_text

Record = dict[str, Any]

WIDTH, LEFT, GAP, PANEL, ROW, HEAD = 860.0, 140.0, 22.0, 222.0, 24.0, 66.0
PROTOCOLS = {
    "published split": "Published split: each hospital's own test patients, {seeds} seeds",
    "cross-validation": "Cross-validation: every patient of a hospital tests, {seeds} repeats",
}
MARKS = (("none", -4.5, "plain"), ("local", 4.5, "private"))
STYLE = """
svg { --page: #ffffff; --ink: #1a2026; --muted: #57616b; --grid: #e6eaee; --rule: #b9c2ca; --private: #0a5b86;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --page: #11161a; --ink: #e7ebee; --muted: #a2adb7; --grid: #262e35;
  --rule: #4a555f; --private: #6dbdea; } }
.page { fill: var(--page); } .head { fill: var(--ink); font-size: 14px; font-weight: 600; }
.label { fill: var(--ink); font-size: 12px; } .tick { fill: var(--muted); font-size: 12px; }
.grid { stroke: var(--grid); } .zero { stroke: var(--ink); stroke-dasharray: 4 3; }
.plain { stroke: var(--muted); stroke-width: 1.3; stroke-dasharray: 2 2.5; }
.plain-mark { stroke: var(--muted); fill: var(--page); stroke-width: 1.5; }
.private { stroke: var(--private); stroke-width: 1.6; } .private-mark { stroke: var(--private); fill: var(--private); }
"""


def picture_of(records: Sequence[Record]) -> str:
    """An SVG file's text; hospitals without an own model are left out."""
    shown = [record for record in records if record["protocol"] in PROTOCOLS and record["better_by"] is not None]
    shown = [record for record in shown if record["low"] is not None]
    ends = [0.0, *(record[key] for record in shown for key in ("low", "high"))]
    reach = around(ends, 0.1)
    marks: list[Markup] = [*_legend()]
    top = 64.0
    for protocol, title in PROTOCOLS.items():
        own = [record for record in shown if record["protocol"] == protocol]
        if not own:
            continue
        strategies = list(dict.fromkeys(record["strategy"] for record in own))
        marks.append(text(20, top + 12, title.format(seeds=own[0]["seeds"]), "head"))
        for index, site in enumerate(dict.fromkeys(record["site"] for record in own)):
            left = LEFT + index * (PANEL + GAP)
            marks += _panel([record for record in own if record["site"] == site], strategies, reach, left, top)
        marks += [text(20, _row(top, number) + 4, name, "label") for number, name in enumerate(strategies)]
        top = _row(top, len(strategies)) + 46
    words = (
        "Accuracy of the model that the study leaves a hospital with, minus that of its own model. All intervals of",
        "one mark and table hold together at 95 %. ε 3: δ 0.0001, one patient, add or remove one, whoever colludes.",
    )
    marks += [text(20, top + 18 * number, line_, "tick") for number, line_ in enumerate(words)]
    height = top + 36
    said = "; ".join(
        f"{r['protocol']}, {r['privacy']}, {r['strategy']}, {r['site']}: {r['better_by']:+.3f} "
        f"({r['low']:+.3f} to {r['high']:+.3f})"
        for r in shown
    )
    page = tag("rect", width=WIDTH, height=height, rx=8, class_="page")
    style = tag("style", Markup(STYLE))
    return (
        str(picture("benefit", WIDTH, height, "Which strategy helps which hospital", said, style, page, *marks)) + "\n"
    )


def _row(top: float, number: int) -> float:
    return top + HEAD + ROW * number


def _panel(
    records: Sequence[Record], strategies: Sequence[str], reach: tuple[float, float], left: float, top: float
) -> list[Markup]:
    x = Scale(*reach, left, left + PANEL)
    start, end = _row(top, 0) - 16, _row(top, len(strategies)) - 8
    marks = [text(left, top + 38, f"{records[0]['site']}, {records[0]['patients']} test patients", "label")]
    for tick in x.ticks(4):
        marks.append(line(x(tick), start, x(tick), end, "grid"))
        marks.append(text(x(tick), end + 15, tick_text(tick), "tick", "middle"))
    marks.append(line(x(0), start, x(0), end, "zero"))
    for record in records:
        _, shift, kind = next(mark for mark in MARKS if mark[0] == record["privacy"])
        y = _row(top, strategies.index(record["strategy"])) + shift
        marks.append(line(x(record["low"]), y, x(record["high"]), y, kind))
        marks.append(_mark(kind, x(record["better_by"]), y))
    return marks


def _legend() -> list[Markup]:
    marks = []
    for at, kind, words in (
        (20.0, "plain", "no privacy"),
        (150.0, "private", "ε 3 at each hospital"),
        (340.0, "zero", "no difference; to the right the study is better than the own model"),
    ):
        marks += [line(at, 30, at + 28, 30, kind), text(at + 36, 34, words, "label")]
        if kind != "zero":
            marks.append(_mark(kind, at + 14, 30.0))
    return marks


def _mark(kind: str, x: float, y: float) -> Markup:
    if kind == "private":
        return dot(x, y, 3.6, "private-mark")
    return tag("rect", x=x - 3.2, y=y - 3.2, width=6.4, height=6.4, class_="plain-mark")
