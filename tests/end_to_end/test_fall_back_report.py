"""A hospital's own report of a study with a fall-back: verdicts and the model that it keeps, from its folder."""

from typing import Any

from wardround.client.admission import cohort_of
from wardround.client.fall_back import in_rounds
from wardround.client.released import site_report
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.members import Members
from wardround.client.store.results import keep_model
from wardround.console.reports.benefits import sentences, site_words


def test_a_hospital_reads_its_verdict_and_keeps_its_own_model_where_the_shared_one_is_no_better(
    consortium: Any, make_plan_of: Any
) -> None:
    folder, plan = consortium.folders["hungarian"], make_plan_of("fall_back_share=0.3")
    consortium.approve(plan, "hungarian")
    # A study that taught nothing: its model says 0.5 of everybody.
    keep_model(folder, plan, plan.starting_model())
    store, ledger = open_store(folder.database), folder.ledger()
    members, settings = Members(store, folder.patients_key()), read_settings(folder.path)
    found = site_report(folder, plan, settings, ledger, members, 0)
    drawn = in_rounds(plan, cohort_of(plan, folder, settings, members))
    assert drawn is not None and found.kept is not None
    assert (found.kept.model, found.kept.held_back) == ("own", int((~drawn).sum())) and found.kept.held_back > 20
    (shared,) = found.benefit
    assert (shared.verdict, shared.comparisons, shared.metric) == ("harms", 1, "accuracy")
    said = sentences(site_words(found))
    assert said.startswith("The shared model harms you by ") and "Goes on with its own model" in said
    store.close()
    ledger.close()
