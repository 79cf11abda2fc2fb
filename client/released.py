"""What a study left at the site: the model, and the site's own report. Nothing here goes out.

The report looks at the site's own test patients and at a model that the site trains for itself: both stay here, so they
are not charged.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from wardround.client.admission import cohort_of
from wardround.client.comparison import compare, row
from wardround.client.personal import personalised
from wardround.client.plugins.task import site_task
from wardround.client.settings import SiteSettings
from wardround.client.site_result import SiteResult
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.members import Members
from wardround.client.store.memory import SiteMemory
from wardround.protocol.errors import UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.parameters import Vector, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.strategies import strategy_from


def keep_model(folder: SiteFolder, plan: StudyPlan, model: Vector) -> Path:
    """Write the final model of a study into ``studies/<digest>/``; returns its path."""
    place = folder.path / "studies" / plan.digest[:16]
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / "model.safetensors"
    tensors = {name: np.ascontiguousarray(part) for name, part in plan.layout.split(model).items()}
    beside = path.with_suffix(".new")
    beside.write_bytes(save(tensors, {"plan": plan.digest, "model": model_hash(model)}))
    beside.replace(path)
    return path


def kept_model(folder: SiteFolder, plan: StudyPlan) -> Vector:
    """The final model of a study, shape (d,). Raises UsageError while there is none."""
    path = folder.path / "studies" / plan.digest[:16] / "model.safetensors"
    if not path.exists():
        raise UsageError("this study has no final model here yet", "it comes with the end of the study")
    return plan.layout.join(load(path.read_bytes()))


def site_report(
    folder: SiteFolder, plan: StudyPlan, settings: SiteSettings, ledger: Ledger, members: Members, rounds_in_sum: int
) -> SiteResult:
    """The site's own row: its own model and the shared one on its own test patients, and what the study cost here."""
    cohort = cohort_of(plan, folder, settings, members)
    task = site_task(plan, folder, released=False)
    strategy, model = strategy_from(plan.strategy), kept_model(folder, plan)
    memory = SiteMemory(members.store, folder.site, folder.memory_key())
    after = memory.before(plan.digest, plan.rounds + 1, model_hash(model))
    mine = personalised(plan, task, cohort, strategy, model, after)
    compared = compare(plan, task, cohort, model, mine, folder.weights)
    domains = members.domains(cohort.train_ids or ())
    charged = max(ledger.charged(plan.digest, domain) for domain in domains)
    epsilon_site = _epsilon(plan, folder.site, charged)
    return row(plan, task, cohort, compared, compared.verdicts, rounds_in_sum=rounds_in_sum, epsilon_site=epsilon_site)


def _epsilon(plan: StudyPlan, site: str, charged: int) -> float | None:
    event, delta = plan.round_event(site), plan.privacy.delta
    if not isinstance(event, PoissonGaussian) or delta is None:
        return None
    from wardround.privacy.accounting import epsilon

    return epsilon([event] * charged, delta) if charged else 0.0
