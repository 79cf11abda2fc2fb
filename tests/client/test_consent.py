"""Opt-outs: read before every round, obeyed from the next one on, and a source that fails stops the round."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client import learning as learning_module
from wardround.client.connectors.cohort import make_cohort
from wardround.client.consent import Asked, Consent, FhirConsents, FlagColumn, IdList, Source
from wardround.client.governance import grant_for, open_domain
from wardround.client.site import Site
from wardround.client.store.members import Members, Part
from wardround.client.store.opt_outs import OptOuts
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.ledger import Refuse, Start
from wardround.protocol.messages import LocalRule, Refusal, RefusalCode, Reply, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.strategies import strategy_from

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
TODAY = date(2026, 11, 23)
PLAN = make_plan(parse_configuration(compose_configuration([])), {"north": 50, "a": 50, "b": 50}, TODAY)
START = initial_weights(PLAN.layout, PLAN.model.scheme, PLAN.model.seed)
PATIENTS = 48
IDS = np.array([f"MRN-{number:03d}" for number in range(PATIENTS)])
WIDTH = len(PLAN.contract.feature_names)
ROWS = np.column_stack([np.arange(PATIENTS), np.random.default_rng(7).normal(size=(PATIENTS, WIDTH - 1))])
"""The first feature is the patient's number, so that a test sees who is in a batch."""

COHORT = make_cohort(
    "north", ROWS, np.arange(PATIENTS) % 2, test=np.arange(PATIENTS) >= 40, patients=IDS
)  # fmt: skip


class Rounds:
    """A hospital with a granted plan whose opt-outs come from ``sources``; ``drawn`` has the patients of each batch."""

    def __init__(self, hospital: Any, sources: list[Source], patch: pytest.MonkeyPatch) -> None:
        self.hospital = hospital
        for domain in ("training", "second"):
            hospital.ledger.record(hospital.approved(open_domain(domain, 12.0, 1e-4)))
            hospital.ledger.record(hospital.approved(grant_for(PLAN, "north", domain)))
        self.members = Members(hospital.ledger._store, hospital.folder.patients_key(), lambda: hospital.now)
        assert COHORT.train_ids is not None
        self.members.enrol(COHORT.train_ids, "training", Part.TRAIN)
        self.opt_outs = OptOuts(self.members)
        self.sources = sources
        self.number = 0
        self.drawn: list[set[int]] = []
        self.offered: list[set[int]] = []
        real, engine = learning_module.train_private, task_from(PLAN).engine
        rounds = self

        class Watched:
            size = engine.size

            def gradient_sum(self, parameters: Any, examples: Any, clip_norm: Any) -> Any:
                rounds.drawn.append({int(value) for value in examples.features[:, 0]})
                return engine.gradient_sum(parameters, examples, clip_norm)

        def watched(_: Any, model: Any, patients: Any, *rest: Any) -> Any:
            rounds.offered.append({int(value) for value in patients.features[:, 0]})
            return real(Watched(), model, patients, *rest)  # type: ignore[arg-type]

        patch.setattr(learning_module, "train_private", watched)
        self.restart()

    def restart(self) -> None:
        """The site is started anew, with the domains that its patients have now."""
        assert COHORT.train_ids is not None
        domains = self.members.domains(COHORT.train_ids)
        consent = Consent(self.sources, self.members, self.opt_outs, COHORT.train_ids, domains, lambda: NOW)
        self.site = Site(
            PLAN, COHORT, task_from(PLAN), strategy_from(PLAN.strategy), self.hospital.ledger,
            domains=domains, consent=consent,
        )  # fmt: skip

    def run(self) -> Reply | Refusal:
        self.number += 1
        model = START if self.number == 1 else START + np.float32(self.number)
        rule = LocalRule(PLAN.local.learning_rate)
        request = RoundRequest(PLAN.digest, self.number, 1, model, model_hash(model), rule)
        answer = parse_answer(bytes_to_send(self.site.answer(request, TODAY)), "north")
        assert isinstance(answer, Reply | Refusal)
        return answer

    def entries(self, kind: type) -> list[Any]:
        return [fact for fact in self.hospital.ledger.facts() if isinstance(fact, kind)]


@pytest.fixture
def listed(bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Rounds, Path]:
    """Rounds with a list of opt-outs that holds nobody yet, and the list."""
    path = tmp_path / "opt-outs.txt"
    path.write_text("# nobody\n")
    return Rounds(bare, [IdList(path)], monkeypatch), path


def test_an_opted_out_patient_is_in_no_batch_from_the_next_round_on(listed: tuple[Rounds, Path]) -> None:
    rounds, path = listed
    for _ in range(5):
        rounds.run()
    steps = len(rounds.drawn)
    # The control: 25 steps of q = 0.25 or so miss a patient with a chance below 0.001; of two, both are hardly missed.
    assert set().union(*rounds.drawn) >= {4} or set().union(*rounds.drawn) >= {5}
    assert all(len(offered) == 40 for offered in rounds.offered)
    path.write_text("MRN-004\nMRN-005\n")
    for _ in range(10):
        assert isinstance(rounds.run(), Reply)
    later = set().union(*rounds.drawn[steps:])
    assert len(rounds.drawn) - steps == 50 and not later & {4, 5} and len(later) >= 35
    assert all(offered == set(range(40)) - {4, 5} for offered in rounds.offered[5:])
    assert [fact.opted_out_at_most for fact in rounds.entries(Start)] == [0] * 5 + [10] * 10


def test_an_opt_out_that_ends_ends(listed: tuple[Rounds, Path]) -> None:
    rounds, path = listed
    for text, left in (("MRN-004\n", 39), ("# nobody\n", 40)):
        path.write_text(text)
        rounds.run()
        assert len(rounds.offered[-1]) == left
    (history,) = rounds.opt_outs.history(rounds.members.hashed(["MRN-004"])[0])
    assert history.until is not None


def test_a_source_that_fails_stops_the_round_and_charges_nothing(listed: tuple[Rounds, Path]) -> None:
    rounds, path = listed
    path.write_text("MRN-004\n")
    rounds.run()
    path.unlink()
    answer = rounds.run()
    assert isinstance(answer, Refusal) and answer.code is RefusalCode.UNAVAILABLE
    assert rounds.hospital.ledger.charged(PLAN.digest) == 1 and len(rounds.offered) == 1
    (refused,) = rounds.entries(Refuse)
    assert "cannot be read" in refused.reason and "MRN" not in refused.reason
    assert rounds.opt_outs.now() == set(rounds.members.hashed(["MRN-004"]))


def test_a_merged_patient_is_drawn_only_by_a_round_that_charges_both_domains(listed: tuple[Rounds, Path]) -> None:
    rounds, _ = listed
    rounds.members.enrol(["OLD-7"], "second", Part.TRAIN)
    rounds.run()
    assert 7 in rounds.offered[-1]
    rounds.members.merge("OLD-7", "MRN-007")
    rounds.run()
    assert 7 not in rounds.offered[-1] and rounds.hospital.ledger.used("second")[0] == 0
    rounds.restart()
    rounds.run()
    assert 7 in rounds.offered[-1]
    spent = [rounds.hospital.ledger.used(domain)[0] for domain in ("training", "second")]
    assert spent[0] == 3 * spent[1] > 0


def test_an_opt_out_under_one_id_holds_for_every_id_of_the_person(listed: tuple[Rounds, Path]) -> None:
    rounds, path = listed
    rounds.members.merge("MRN-007", "OTHER-SYSTEM-7")
    rounds.members.merge("OLD-8", "MRN-008")
    path.write_text("OTHER-SYSTEM-7\nOLD-8\n")
    rounds.run()
    assert rounds.offered == [set(range(40)) - {7, 8}]


def test_a_patient_who_was_never_enrolled_is_not_drawn(listed: tuple[Rounds, Path]) -> None:
    rounds, _ = listed
    rounds.members.store.execute("DELETE FROM members WHERE patient = ?", rounds.members.hashed(["MRN-009"]))
    rounds.run()
    assert rounds.offered == [set(range(40)) - {9}]


def test_a_table_without_ids_has_nobody_who_could_opt_out(listed: tuple[Rounds, Path]) -> None:
    rounds, path = listed
    with pytest.raises(UsageError, match="nobody can opt out"):
        Consent([IdList(path)], rounds.members, rounds.opt_outs, None, ("training",))


# The sources, one by one.


def read(source: Source) -> set[str]:
    return set(source.opted_out(NOW))


def refusal(source: Source) -> str:
    with pytest.raises(Unavailable) as refused:
        source.opted_out(NOW)
    lines = refused.value.lines()
    assert len(lines.splitlines()) == 2 and "CANARY" not in lines
    assert refused.value.__context__ is None or refused.value.__suppress_context__
    return refused.value.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4711\n4712\n", {"4711", "4712"}),
        ("\ufeffpatient_id,since\r\n4711,2026-01-01\r\n# a comment\r\n\r\n 4712 ,\r\n", {"patient_id", "4711", "4712"}),
        ('"4711","a, b"\n4712', {"4711", "4712"}),
        ("# nobody has opted out\n", set()),
    ],
)
def test_a_list_has_an_id_at_the_beginning_of_each_line(tmp_path: Path, text: str, found: set[str]) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode())
    assert read(IdList(path)) == found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"CANARY\xff\xfe\n", "no text in UTF-8"),
        (b"CANARY;2026-01-01\n", "separated by something else than ','"),
        (b'"CANARY\n', "is no CSV"),
    ],
)
def test_a_list_that_is_not_understood_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    assert why in refusal(IdList(path))


def test_a_list_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(IdList(tmp_path / "nothing"))
    assert "cannot be read" in refusal(IdList(tmp_path))


def flagged(path: Path, text: str) -> FlagColumn:
    path.write_text(text)
    return FlagColumn(path, "pid", "no_research", frozenset({"1", "yes"}), frozenset({"0", ""}), ";")


def test_a_flag_opts_out_whoever_has_it_in_one_row(tmp_path: Path) -> None:
    source = flagged(tmp_path / "emr.csv", "age;pid;no_research\n50;a;0\n51;b;1\n52;c;\n53;a;yes\n54;d;0\n")
    assert read(source) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pid;age\nCANARY;1\n", "needs one column 'pid' and one column 'no_research'"),
        ("pid;no_research;no_research\nCANARY;1;0\n", "needs one column"),
        ("pid;no_research\nCANARY;maybe\n", "row 1 has a value in column 'no_research' that is not known"),
        ("pid;no_research\na;0\nCANARY\n", "row 2 has another number of cells"),
        ("pid;no_research\nCANARY;1;1\n", "row 1 has another number of cells"),
        ("pid;no_research\n ;1\n", "row 1 does not say who"),
        ('pid;no_research\n"CANARY;1\n', "is no CSV"),
        ("", "is empty"),
    ],
)
def test_a_flag_column_that_is_not_understood_is_refused(tmp_path: Path, text: str, why: str) -> None:
    assert why in refusal(flagged(tmp_path / "emr.csv", text))


def test_a_function_of_the_hospital_is_asked_and_its_errors_are_not_quoted() -> None:
    def broken() -> list[str]:
        raise RuntimeError("no row for CANARY-4711")

    assert read(Asked(lambda: ["4711", "4712"])) == {"4711", "4712"}
    assert "RuntimeError" in refusal(Asked(broken))


# FHIR R4.


def consent(who: Any = "Patient/4711", /, **changes: Any) -> dict[str, Any]:
    """An active no to research, as FHIR R4 writes it; a change of None takes a part away."""
    resource = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": "urn:consentscope", "code": "research"}]},
        "category": [{"coding": [{"system": "urn:loinc", "code": "59284-0"}]}],
        "patient": {"reference": who} if isinstance(who, str) else who,
        "provision": {"type": "deny"},
    } | changes
    return {name: value for name, value in resource.items() if value is not None}


def category(code: str) -> dict[str, Any]:
    return {"scope": None, "category": [{"coding": [{"code": code}]}]}


def fhir(tmp_path: Path, *resources: Any) -> FhirConsents:
    path = tmp_path / "consents.ndjson"
    path.write_text("\n".join(json.dumps(resource) for resource in resources))
    return FhirConsents(path)


def bundle(*resources: Any, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": r} for r in resources]} | more


def period(start: str | None = None, end: str | None = None) -> dict[str, Any]:
    limits = {"start": start, "end": end}
    return {"provision": {"type": "deny", "period": {name: at for name, at in limits.items() if at}}}


@pytest.mark.parametrize(
    "resource",
    [
        consent(),
        *(consent(**category(code)) for code in ("research", "rsreid", "rsdid", "59284-0")),
        consent(provision={"type": "permit", "provision": [{"type": "permit"}, {"type": "deny"}]}),
        consent(provision={"type": "deny", "provision": [{"type": "permit"}]}),
        consent(provision={}),
        consent(provision=None),
        consent(provision=None, policyRule={"coding": [{"code": "OPTOUT"}]}),
        consent(provision={"type": "permit"}, modifierExtension=[{"url": "x"}]),
        consent("https://127.0.0.1/fhir/Patient/4711"),
        consent("Patient/4711/_history/3"),
        consent({"identifier": {"system": "urn:x", "value": "4711"}}),
        consent(**period("2026-11-23")),
        consent(**period("2020", "2026")),
        consent(**period(None, "2026-11")),
        consent(**period("2026-11-23T10:30:00+01:00", "9999-12-31")),
        consent(**period("0001-01-01", "9999-12-31T23:59:59Z")),
    ],
)
def test_an_active_no_to_research_in_force_opts_out(tmp_path: Path, resource: dict[str, Any]) -> None:
    assert read(fhir(tmp_path, resource)) == {"4711"}


@pytest.mark.parametrize(
    "resource",
    [
        *(consent(status=s) for s in ("draft", "proposed", "rejected", "inactive", "entered-in-error")),
        consent(provision={"type": "permit"}),
        consent(provision=None, policyRule={"coding": [{"code": "OPTIN"}]}),
        consent(**category("dnr")),
        consent(scope={"coding": [{"code": "treatment"}]}, category=[]),
        consent(**period("2026-11-25")),
        consent(**period(None, "2026-11-21")),
        consent(**period(None, "2025")),
        consent(**period("2026-11-23T10:30:01+01:00")),
        consent(
            provision={"type": "permit", "provision": [{"type": "deny", "period": {"end": "2025"}}, {"type": "permit"}]}
        ),
        {"resourceType": "Patient", "id": "4711"},
    ],
)
def test_what_is_not_an_active_no_to_research_opts_nobody_out(tmp_path: Path, resource: dict[str, Any]) -> None:
    assert read(fhir(tmp_path, resource)) == set()


def test_one_resource_a_bundle_and_lines_are_read(tmp_path: Path) -> None:
    many = [consent(f"Patient/{name}") for name in "abc"]
    assert read(fhir(tmp_path, *many)) == read(fhir(tmp_path, bundle(*many))) == {"a", "b", "c"}
    assert read(fhir(tmp_path, many[0], bundle(*many[1:]))) == {"a", "b", "c"}
    (tmp_path / "consents.ndjson").write_text(json.dumps(many[0], indent=2))
    assert read(FhirConsents(tmp_path / "consents.ndjson")) == {"a"}
    assert read(fhir(tmp_path, bundle())) == set()


def test_both_names_of_a_patient_are_opted_out(tmp_path: Path) -> None:
    both = {"reference": "Patient/f-1", "identifier": {"value": "MRN-1"}}
    assert read(fhir(tmp_path, consent(both))) == {"f-1", "MRN-1"}


@pytest.mark.parametrize(
    ("resource", "why"),
    [
        (consent("CANARY", status="actve"), "status"),
        (consent("CANARY", status=None), "status"),
        (consent("CANARY", status=["active"]), "status"),
        (consent("Patient/CANARY", provision={"type": "refuse"}), "neither 'deny' nor 'permit'"),
        (consent("Patient/CANARY", provision=[{"type": "deny"}]), "not an object"),
        (consent("Patient/CANARY", category={"coding": []}), "not a list"),
        (consent("Patient/CANARY", scope="research"), "not an object"),
        (consent("Group/CANARY"), "'Patient/ID'"),
        (consent("urn:uuid:CANARY"), "'Patient/ID'"),
        (consent({"display": "CANARY"}), "does not say whose"),
        (consent(patient=None), "not an object"),
        (consent("Patient/CANARY", **period("23.11.2026")), "no date"),
        (consent("Patient/CANARY", **period("2026-13-01")), "no date"),
        (consent("Patient/CANARY", **period(None, "2026-11-23T09:30")), "no date"),
        (["CANARY"], "not an object"),
        ({"id": "CANARY"}, "its type"),
        ({"resourceType": "OperationOutcome", "id": "CANARY"}, "a problem of its own"),
        (bundle(consent("Patient/CANARY"), link=[{"relation": "next", "url": "x"}]), "one page of several"),
        ({"resourceType": "Bundle", "entry": [{"fullUrl": "CANARY"}]}, "not an object"),
    ],
)
def test_a_resource_that_is_not_fhir_r4_stops_the_round(tmp_path: Path, resource: Any, why: str) -> None:
    assert why in refusal(fhir(tmp_path, consent(), resource))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"resourceType": "Consent", "CANARY', "neither JSON nor lines of JSON"),
        (json.dumps(consent()) + '\n{"resourceType": "Cons', "neither JSON nor lines of JSON"),
        ('{"resourceType": "Consent", "status": "active", "status": "inactive"}', "neither JSON"),
        ("[" * 100_000, "neither JSON"),
        ("", "is empty"),
    ],
)
def test_an_export_that_was_cut_off_stops_the_round(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "consents.json").write_text(text)
    assert why in refusal(FhirConsents(tmp_path / "consents.json"))
