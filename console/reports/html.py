"""The report as one HTML file: no network, no script, every value escaped, styles allowed by their hash alone.

Pictures, where a study has some, are phantoms that the page itself holds.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from wardround.console.reports import charts, findings, numbers, words
from wardround.console.reports.thumbnails import thumbnails
from wardround.console.reports.view import View
from wardround.console.templates import environment
from wardround.privacy.accounting import rounded_up
from wardround.protocol.plan import StudyPlan
from wardround.simulations.result import SimulationResult

_TEMPLATES: Final = Path(__file__).parent / "templates"


def render_report(result: SimulationResult, plan: StudyPlan) -> str:
    """The page for ``result`` of ``plan``, as one string of HTML."""
    return page(
        "report.html.j2",
        result=result,
        plan=plan,
        view=View(result, plan),
        words=words,
        thumbnails=thumbnails(plan.contract),
    )


def page(template: str, **values: Any) -> str:
    """``template`` with ``values``, and with the one style sheet and its hash, as one string of HTML."""
    css = Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))
    css_hash = b64encode(sha256(css.encode()).digest()).decode()
    return _environment().get_template(template).render(css=css, css_hash=css_hash, **values) + "\n"


@cache
def _environment() -> Environment:
    made = environment(_TEMPLATES)
    made.filters |= {
        "decimal": numbers.decimal,
        "signed": numbers.signed,
        "interval": numbers.interval,
        "up": rounded_up,
        "percent_up": numbers.percent_up,
    }
    made.globals |= {
        "plural": numbers.plural,
        "delta_text": numbers.delta_text,
        "swatch": charts.swatch,
        "hospital_bar": charts.hospital_bar,
        "UNPROTECTED": numbers.UNPROTECTED,
        "NOT_ESTIMABLE": numbers.NOT_ESTIMABLE,
        "Verdict": findings.Verdict,
        "verdict": findings.verdict,
        "metric_name": numbers.metric_name,
        "left_out": findings.left_out,
    }
    return made
