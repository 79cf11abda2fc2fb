"""What a study predicts and by what model, in words for the people who approve it, in the reader's language."""

from typing import Final

from wardround.console.i18n import N_, _, ngettext, numeral
from wardround.console.reports.numbers import choice, listed
from wardround.protocol.contract import DataContract
from wardround.protocol.image_tasks import (
    PIXEL_TASKS,
    ImageClassification,
    ImageDenseNet,
    ImageSegmentation,
    LinearProbe,
    Outputs,
)
from wardround.protocol.indicators import Indicators
from wardround.protocol.labels import ClassLabel, Finding, FindingsLabel, MaskLabel, NumberLabel
from wardround.protocol.networks import DenseNet121
from wardround.protocol.plan import StudyPlan, TrainedModel
from wardround.protocol.plugins import PluginTask
from wardround.protocol.statistics import Statistics
from wardround.protocol.tasks import Programmed, SurvivalPiecewise, TabularRegression
from wardround.protocol.weights import PublicSeed

_UNITS: Final = {
    "1": N_("none"),
    "a": N_("years"),
    "mo": N_("months"),
    "d": N_("days"),
    "h": N_("hours"),
    "min": N_("minutes"),
    "mm[Hg]": "mmHg",
    "/min": N_("per minute"),
    "Cel": "°C",
    "%": "%",
}
"""UCUM codes whose plain form differs; any other code is shown as it is."""


def label_words(contract: DataContract | None) -> str:
    """The outcome that the model predicts."""
    if contract is None:
        return _("What the researcher's program gave as the outcome; the plan does not describe it.")
    label = contract.label
    if isinstance(label, ClassLabel):
        return _class_words(label)
    if isinstance(label, FindingsLabel):
        each = "; ".join(_class_words(finding) for finding in label.findings)
        count = len(label.findings)
        return ngettext(
            "%(meaning)s: %(count)s finding, each stated or not. %(each)s",
            "%(meaning)s: %(count)s findings, each stated or not. %(each)s",
            count,
        ) % {"meaning": label.meaning, "count": numeral(count), "each": each}
    if isinstance(label, NumberLabel):
        said = _("%(meaning)s: column '%(column)s', %(low)s to %(high)s %(unit)s") % {
            "meaning": label.meaning,
            "column": label.column,
            "low": plain(label.minimum),
            "high": plain(label.maximum),
            "unit": unit_words(label.unit),
        }
        codes = choice([plain(code) for code in label.missing_codes])
        return said + (_("; %(codes)s means missing") % {"codes": codes} if codes else "")
    if isinstance(label, MaskLabel):
        structures = "; ".join(f"{code} = {meaning}" for code, meaning in label.structures.items())
        return _("%(meaning)s: a mask beside each picture, named in column '%(column)s' (%(structures)s)") % {
            "meaning": label.meaning,
            "column": label.column,
            "structures": structures,
        }
    return _(
        "%(meaning)s: time in column '%(time)s' (%(unit)s, at most %(most)s), observed event in column '%(event)s'"
    ) % {
        "meaning": label.meaning,
        "time": label.time,
        "unit": unit_words(label.unit),
        "most": plain(label.maximum_time),
        "event": label.event,
    }


def _class_words(label: ClassLabel | Finding) -> str:
    return _("%(meaning)s: yes where column '%(column)s' is %(yes)s, no where it is %(no)s") % {
        "meaning": label.meaning,
        "column": label.column,
        "yes": choice(label.positive),
        "no": choice(label.negative),
    }


def weights_words(plan: StudyPlan) -> list[str]:
    """What others have trained before this study, for each file: its hash, licence and provenance."""
    return [
        _(
            "Weights file %(file)s. Licence: %(licence)s. Provenance: %(provenance)s. Differential privacy does not "
            "cover the people whose data trained it"
        )
        % {"file": file.sha256, "licence": file.licence, "provenance": file.provenance}
        for file in plan.weights_files
    ]


def _plugin_words(task: PluginTask, size: str, start: str) -> str:
    """A model that others wrote, by what names it exactly."""
    plugin = task.plugin
    said = _("The plugin %(name)s %(version)s of %(author)s, digest %(digest)s; %(size)s; %(start)s") % {
        "name": plugin.name,
        "version": plugin.version,
        "author": plugin.author or _("nobody who signed it"),
        "digest": plugin.digest,
        "size": size,
        "start": start,
    }
    settings = ", ".join(f"{name}={plain(value)}" for name, value in sorted(task.settings.items()))
    return said + (_("; settings %(settings)s") % {"settings": settings} if settings else "")


def model_words(plan: StudyPlan) -> str:
    """The model, its size and its public start."""
    task, size, start = plan.task, _size_words(plan.layout.size), _start_words(plan)
    if isinstance(task, Programmed):
        return _("A model made by the researcher's program; %(size)s; %(start)s") % {"size": size, "start": start}
    if isinstance(task, PluginTask):
        return _plugin_words(task, size, start)
    if isinstance(task, Statistics | Indicators):
        return _("Nothing is trained: figures are added up over the hospitals; %(size)s") % {
            "size": ngettext("%(count)s number", "%(count)s numbers", plan.layout.size - 1)
            % {"count": numeral(plan.layout.size - 1)}
        }
    weighted = ""
    if isinstance(task, Outputs) and task.positive_weights:
        weights = listed([plain(weight) for weight in task.positive_weights])
        weighted = _("; a positive outcome counts %(weights)s times (public)") % {"weights": weights}
    if isinstance(task, PIXEL_TASKS):
        return f"{_network_words(task)}; {size}; {start}{weighted}"
    count = 0 if plan.contract is None else len(plan.contract.feature_names)
    inputs = ngettext("%(count)s input", "%(count)s inputs", count) % {"count": numeral(count)}
    if task.hidden:
        kind = _("Multilayer perceptron with %(layers)s hidden units (%(activation)s)") % {
            "layers": listed([str(units) for units in task.hidden]),
            "activation": task.activation,
        }
    else:
        kind = {
            "tabular_classification": _("Logistic regression"),
            "tabular_regression": _("Linear regression"),
        }.get(task.name, _("Linear model"))
    outcome = {
        "tabular_classification": _("of the outcome's probability"),
        "tabular_regression": _("of the quantity, by squared error"),
        "survival_cox": _("of the log relative risk, by Cox's partial likelihood"),
        "survival_piecewise": _("of the log relative risk, with a hazard constant on each interval of a public grid"),
    }[task.name]
    cuts = ""
    if isinstance(task, SurvivalPiecewise):
        cuts = _("; grid cut at %(cuts)s; public rate %(rate)s") % {
            "cuts": listed([plain(cut) for cut in task.cuts]),
            "rate": plain(task.baseline_rate),
        }
    if isinstance(task, TabularRegression):
        cuts = _("; public centre %(centre)s and scale %(scale)s") % {
            "centre": plain(task.center),
            "scale": plain(task.scale),
        }
    return f"{kind} {outcome}; {inputs}, {size}; {start}{cuts}{weighted}"


def _size_words(size: int) -> str:
    return ngettext("%(count)s parameter in 32-bit floats", "%(count)s parameters in 32-bit floats", size) % {
        "count": numeral(size)
    }


def _start_words(plan: StudyPlan) -> str:
    if isinstance(plan.model, TrainedModel):
        return _("starts from the weights file %(file)s") % {"file": plan.model.file.sha256[:12]}
    if plan.model.scheme == "zeros":
        return _("starts from zeros")
    return _("starts from public random weights (seed %(seed)s)") % {"seed": plan.model.seed}


def _network_words(task: ImageClassification | ImageDenseNet | LinearProbe | ImageSegmentation) -> str:
    if isinstance(task, ImageSegmentation):
        widths = listed([str(width) for width in task.widths])
        return ngettext(
            "U-Net with %(widths)s channels and group normalisation, for %(count)s structure",
            "U-Net with %(widths)s channels and group normalisation, for %(count)s structures",
            task.structures,
        ) % {"widths": widths, "count": numeral(task.structures)}
    if isinstance(task.network, DenseNet121):
        network = _("DenseNet-121 with group normalisation")
    else:
        widths = listed([str(width) for width in task.network.widths])
        network = _("convolutional network with %(widths)s channels and group normalisation") % {"widths": widths}
    if not isinstance(task, LinearProbe):
        return network[0].upper() + network[1:]
    source = task.weights
    if isinstance(source, PublicSeed):
        seen = _("public seed %(seed)s") % {"seed": source.seed}
    else:
        seen = _("weights file %(file)s") % {"file": source.sha256[:12]}
    return _("Linear model on what a frozen %(network)s (%(seen)s) makes of a picture") % {
        "network": network,
        "seen": seen,
    }


def plain(value: float) -> str:
    """A constant of the plan with a real minus sign."""
    return numeral(value)


def unit_words(unit: str) -> str:
    """A UCUM code in plain form."""
    return _(_UNITS[unit]) if unit in _UNITS else unit
