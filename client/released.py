"""The site's own report of a finished study, made where its patients are. Nothing here goes out.

The report looks at the site's own test patients and at a model that the site trains for itself: both stay here, so they
are not charged.
"""

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
from wardround.client.store.results import keep_report, kept_model
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.strategies import strategy_from


def site_report(
    folder: SiteFolder, plan: StudyPlan, settings: SiteSettings, ledger: Ledger, members: Members, rounds_in_sum: int
) -> SiteResult:
    """The site's own row: its own model and the shared one on its own test patients, and what the study cost here.

    It is kept in the site's folder, where the site's own console shows it.
    """
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
    found = row(plan, task, cohort, compared, compared.verdicts, rounds_in_sum=rounds_in_sum, epsilon_site=epsilon_site)
    keep_report(folder, plan, found)
    return found


def _epsilon(plan: StudyPlan, site: str, charged: int) -> float | None:
    event, delta = plan.round_event(site), plan.privacy.delta
    if not isinstance(event, PoissonGaussian) or delta is None:
        return None
    from wardround.privacy.accounting import epsilon

    return epsilon([event] * charged, delta) if charged else 0.0
