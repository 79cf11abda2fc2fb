"""ROC and calibration of a hospital's own and the shared model on its own test patients, in the reader's language.

Own model: dashed and hollow. Shared model: solid and filled.
"""

from collections.abc import Sequence

from markupsafe import Markup

from wardround.client.site_result import CurveResult
from wardround.console.i18n import _
from wardround.console.reports.panel import WIDTH, of_probabilities
from wardround.console.reports.svg import Point, dot, path, picture


def roc(key: str, words: str, own: CurveResult, shared: CurveResult) -> Markup:
    """Sensitivity against 1 - specificity on the hospital's test patients."""
    x, y, marks = of_probabilities(_("1 \N{MINUS SIGN} specificity"), _("sensitivity"))
    for kind, curve in (("own", own), ("shared", shared)):
        if curve.roc:
            marks.append(path(_corners([(x(a), y(b)) for a, b in curve.roc]), f"{kind}-line"))
    if own.roc and shared.roc:
        said = _("curves of the own and the shared model; the diagonal is chance")
    else:
        said = (
            _("curve of the own model; the diagonal is chance")
            if own.roc
            else _("curve of the shared model; the diagonal is chance")
        )
    return picture(key, WIDTH, 248, words, said, *marks, class_="panel")


def calibration(key: str, words: str, own: CurveResult, shared: CurveResult) -> Markup:
    """Observed share against predicted probability; the area of a dot grows with its patients."""
    x, y, marks = of_probabilities(_("predicted probability"), _("observed share"))
    most = max((n for curve in (own, shared) for _, _, n in curve.calibration), default=1)
    for kind, curve in (("own", own), ("shared", shared)):
        points = [(x(p), y(o)) for p, o, _ in curve.calibration]
        marks += [
            dot(px, py, 2.0 + 5.0 * (n / most) ** 0.5, f"{kind}-dot see-through")
            for (px, py), (_, _, n) in zip(points, curve.calibration, strict=True)
        ]
    said = "; ".join(
        f"{name}: " + ", ".join(_bin(*each) for each in curve.calibration)
        for name, curve in ((_("own model"), own), (_("shared model"), shared))
        if curve.calibration
    )
    return picture(key, WIDTH, 248, words, said, *marks, class_="panel")


def _bin(predicted: float, observed: float, patients: int) -> str:
    words = _("predicted %(predicted)s, observed %(observed)s, patients: %(patients)s")
    return words % {"predicted": f"{predicted:.2f}", "observed": f"{observed:.2f}", "patients": patients}


def _corners(points: Sequence[Point]) -> list[Point]:
    """Only the points at which the curve turns: an ROC curve has many on one line."""
    kept: list[Point] = []
    for point in points:
        if len(kept) > 1 and _straight(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _straight(a: Point, b: Point, c: Point) -> bool:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) < 1e-6
