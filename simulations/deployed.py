"""One table for a study that ran over hospitals' daemons, for whoever may see every hospital's own report.

In a federation nobody may: each hospital sees its own row. The demo's hospitals are folders of one person.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter, process_time

from wardround.client.comparison import HEADLINES
from wardround.client.site_result import SiteResult
from wardround.privacy.budget import fixed_order
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.receipt import Receipt
from wardround.simulations.assemble import ACCOUNTANT
from wardround.simulations.environment import describe_environment
from wardround.simulations.result import PrivacyResult, RoundResult, RoundSiteResult, SimulationResult
from wardround.simulations.statement import privacy_statement


def result_of(
    plan: StudyPlan,
    sites: Sequence[SiteResult],
    receipts: Sequence[Receipt],
    *,
    data_hashes: Mapping[str, str],
    attribution: str,
    epsilon_cap: float,
    standing: str | None,
    started: float,
) -> SimulationResult:
    """The result as a simulation's, from the sites' own reports and the study's receipts; no metric of a round."""
    rounds = tuple(_round(receipt) for receipt in receipts)
    return SimulationResult(
        study=plan.study,
        title=plan.title,
        plan_digest=plan.digest,
        created=datetime.now(UTC).replace(microsecond=0),
        seconds_to_first_round=0.0,
        seconds_in_rounds=perf_counter() - started,
        seconds=perf_counter() - started,
        cpu_seconds=process_time(),
        strategy=plan.strategy.name,
        task=plan.task.name,
        headline_metrics=HEADLINES.get(plan.task.label_kind, ()),
        privacy=_privacy(plan, sites, epsilon_cap, standing),
        sites=tuple(sorted(sites, key=lambda site: site.site)),
        rounds=rounds,
        final_model=receipts[-1].model_after,
        data_hashes=dict(data_hashes),
        split_hashes={},
        attribution=attribution,
        deployed=True,
        notes=("Every hospital was a daemon of its own; this table was put together from their own reports",),
        environment=describe_environment(1, plan.model.seed),
    )


def _round(receipt: Receipt) -> RoundResult:
    return RoundResult(
        round_number=receipt.round_number,
        state=receipt.state,
        model_before=receipt.model_before,
        model_after=receipt.model_after,
        voided_by=receipt.voided_by,
        sites={
            line.site: RoundSiteResult(outcome=line.outcome, detail=line.detail, epsilon_site=line.epsilon_at_most)
            for line in receipt.sites
        },
    )


def _privacy(plan: StudyPlan, sites: Sequence[SiteResult], epsilon_cap: float, standing: str | None) -> PrivacyResult:
    terms = plan.privacy
    secure = plan.sum_threshold if terms.secure_aggregation else None
    mode, claim = terms.mode.value, terms.claim.value
    if terms.mode is PrivacyMode.NONE or terms.delta is None:
        return PrivacyResult(
            mode=mode,
            claim=claim,
            standing=standing,
            statement=privacy_statement(plan, None),
            secure_sum_of_at_least=secure,
        )
    largest = max(site.epsilon_site or 0.0 for site in sites)
    return PrivacyResult(
        mode=mode,
        claim=claim,
        standing=standing,
        statement=privacy_statement(plan, largest),
        delta=terms.delta,
        epsilon_planned=largest,
        epsilon_limit=terms.epsilon,
        noise_multiplier=terms.noise_multiplier,
        sampling_probability=terms.sampling_probability,
        clip_norm=terms.clip_norm,
        accountant=ACCOUNTANT,
        filter_order=fixed_order(epsilon_cap, terms.delta),
        domain_cap=epsilon_cap,
        secure_sum_of_at_least=secure,
    )
