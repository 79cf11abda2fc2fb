"""A configured run: its folder, what it refuses before anything runs, and resuming after an interruption."""

import json
from datetime import date
from pathlib import Path
from time import perf_counter

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from wardround.client.store.database import open_store
from wardround.client.store.ledger import Ledger
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.parameters import model_hash
from wardround.protocol.plan import StudyPlan
from wardround.simulations.configured import Simulated, simulate
from wardround.simulations.result import RoundResult, SimulationResult

TODAY = date(2026, 11, 23)


OWN_STUDY = """
defaults:
  - override /task: mlp
study:
  name: mine
  title: A study of one's own
  purpose: to show that files of one's own work
  controllers: [{name: we}]
  legal_basis: none
  ethics_reference: none
  recipients: [us]
  permitted_use: testing this program
contract:
  patient_id: pid
  columns:
    age: {type: number, meaning: Age, unit: a, minimum: 0, maximum: 110, center: 50, scale: 10}
  label: {kind: class, column: outcome, meaning: Ill, positive: ["1"], negative: ["0"]}
data:
  test_share: 0.3
  sites:
"""


def run(folder: Path, *overrides: str, stop_after: int | None = None) -> Simulated:
    """Run overrides; ``stop_after`` interrupts when that round is over, as Ctrl-C would."""

    def listener(plan: StudyPlan, result: RoundResult) -> None:
        if result.round_number == stop_after:
            raise KeyboardInterrupt

    configuration = parse_configuration(compose_configuration([*overrides, f"simulation.output={folder}"]))
    return simulate(configuration, today=TODAY, started=perf_counter(), listener=listener)


def test_a_run_writes_files_that_agree_with_each_other(tmp_path: Path) -> None:
    done = run(tmp_path, "rounds=3")
    folder = done.folder.path
    assert sorted(f.name for f in folder.iterdir()) == [
        "configuration.json", "model.safetensors", "plan.json", "result.json", "rounds.parquet",
    ]  # fmt: skip
    plan = StudyPlan.parse((folder / "plan.json").read_bytes())
    result = SimulationResult.model_validate_json((folder / "result.json").read_text())
    assert plan.digest == result.plan_digest == done.plan.digest
    assert result.model_dump(exclude={"created"}) == done.result.model_dump(exclude={"created"})
    assert model_hash(plan.layout.join(load_file(folder / "model.safetensors"))) == result.final_model
    table = pq.read_table(folder / "rounds.parquet").to_pylist()
    assert len(table) == 12 and {row["site"] for row in table} == {"cleveland", "hungarian", "switzerland", "va"}
    assert all(row["delta"] == 1e-4 for row in table)
    assert table[-1]["epsilon_site"] == next(s.epsilon_site for s in result.sites if s.site == "va")


def test_an_interrupted_run_without_privacy_ends_bit_for_bit_like_an_undisturbed_one(tmp_path: Path) -> None:
    arguments = ("privacy=none", "strategy=fedadam", "rounds=5")
    undisturbed = run(tmp_path / "a", *arguments)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", *arguments, stop_after=3)
    (folder,) = (tmp_path / "b").iterdir()
    resumed = run(tmp_path / "c", f"simulation.resume={folder}")
    assert resumed.result.final_model == undisturbed.result.final_model
    assert [r.model_dump() for r in resumed.result.rounds] == [r.model_dump() for r in undisturbed.result.rounds]
    assert resumed.folder.path == folder and (folder / "result.json").exists()


def test_a_resumed_private_run_is_charged_once_for_each_round(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", "rounds=4")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", "rounds=4", stop_after=2)
    (folder,) = (tmp_path / "b").iterdir()
    resumed = run(tmp_path / "c", f"simulation.resume={folder}")
    assert [s.epsilon_site for s in resumed.result.sites] == [s.epsilon_site for s in whole.result.sites]
    assert [r.round_number for r in resumed.result.rounds] == [1, 2, 3, 4]


def test_a_checkpoint_holds_the_ledgers_of_every_site(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "rounds=4", "simulation.engine=sites", stop_after=2)
    (folder,) = tmp_path.iterdir()
    from wardround.simulations.files import RunFolder

    snapshot = RunFolder(folder).read()
    assert snapshot.ledgers is not None and snapshot.progress is not None and snapshot.progress.rounds_done == 2
    ledger = Ledger(open_store(None, snapshot.ledgers), "cleveland")
    assert len(ledger.events(snapshot.plan.digest)) == 2


def test_resuming_a_finished_run_a_strange_folder_or_other_data_is_refused(tmp_path: Path) -> None:
    finished = run(tmp_path / "a", "rounds=1").folder.path
    with pytest.raises(UsageError, match="finished"):
        run(tmp_path / "c", f"simulation.resume={finished}")
    with pytest.raises(UsageError, match="not the folder of a run"):
        run(tmp_path / "c", f"simulation.resume={tmp_path}")


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        (["privacy.epsilon=1e-4", "privacy.noise_multiplier=auto"], "no noise multiplier up to", "larger epsilon"),
        (["privacy.delta=0.001"], "is above that of site 'cleveland', 0.0001", "privacy.delta=auto"),
        (["privacy.epsilon=8", "privacy.noise_multiplier=1.4"], "121 % of the budget of site", "epsilon_cap"),
        (["privacy.noise_multiplier=1.0"], "the plan costs each site epsilon", "noise_multiplier="),
        (["strategy.name=fedavgg"], "no strategy 'fedavgg'", "did you mean 'fedavg'"),
        (["+contract.columns.weight={type: number, meaning: Weight, unit: kg, minimum: 1, maximum: 300}"],
         "no column named 'weight'", "the contract reads"),
        (["min_sites=5"], "needs 5 sites, and 4 can take part", "lower min_sites"),
        (["privacy.mode=dist"], "epsilon_consortium", "configuration.md"),
        (["privacy=dist", "local.steps=2"], "exactly one local step", "configuration.md"),
        (["privacy=dist", "secagg=off"], "needs secure aggregation", "configuration.md"),
        (["privacy=dist", "privacy.noise_multiplier=1.5"], "epsilon_consortium", "noise_multiplier=auto"),
        (["privacy=dist", "consortium_cap=3"], "consortium_cap 3", "raise consortium_cap"),
        (["privacy.epsilon_consortium=3"], "belongs to privacy mode 'dist'", "configuration.md"),
        (["secagg=maybe"], "secagg", "configuration.md"),
        (["local.batch_size=8"], "Poisson", ""),
        (["task.hidden=[8]"], "never leaves a start at zeros", "initial.scheme=uniform"),
        (["epsilon_cap=0.5"], "budget", ""),
        (["contract.columns.age.maximum=50"], "row 1, column 'age': must lie in 18 to 50 a", "not shown on purpose"),
        (["data.dataset=heart_diseases"], "no data set 'heart_diseases'", "did you mean"),
        (["simulation.faults=[{site: oslo, round_number: 1, kind: late}]"], "names the site 'oslo'", "cleveland"),
        (["simulation.faults=[{site: va, round_number: 1, kind: lat}]"], "no fault 'lat'", "late"),
    ],
)  # fmt: skip
def test_an_impossible_study_is_refused_before_anything_runs(
    overrides: list[str], message: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        run(tmp_path, *overrides)
    assert message in error.value.message and hint in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_auto_noise_keeps_the_promise(tmp_path: Path) -> None:
    done = run(tmp_path, "privacy.noise_multiplier=auto", "privacy.delta=auto", "privacy.epsilon=2", "rounds=2")
    assert done.plan.privacy.delta == 1e-4
    assert all(site.epsilon_site is not None and site.epsilon_site <= 2 for site in done.result.sites)


def test_a_study_on_csv_files_of_ones_own(tmp_path: Path) -> None:
    header = "pid,age,sex,outcome\n"
    for name, start in (("north", 0), ("south", 1000), ("west", 2000)):
        rows = [f"{start + n},{30 + n % 50},{n % 2},{int(n % 50 > 25)}" for n in range(120)]
        (tmp_path / f"{name}.csv").write_text(header + "\n".join(rows))
    (tmp_path / "tiny.csv").write_text(header)
    study = tmp_path / "mine.yaml"
    study.write_text(
        OWN_STUDY
        + "".join(f"    - {{site: {n}, path: '{tmp_path}/{n}.csv'}}\n" for n in ("north", "south", "west", "tiny"))
    )
    done = run(tmp_path / "runs", f"study={study}", "privacy=none", "rounds=2", "min_sites=2")
    assert done.plan.study == "mine" and done.plan.min_sites == 2 and done.plan.task.name == "tabular_classification"
    assert {s.site: s.excluded_because for s in done.result.sites} == {
        "north": "", "south": "", "west": "", "tiny": "no training patient",
    }  # fmt: skip
    shared = next(s for s in done.result.sites if s.site == "north").shared.metrics["auroc"].value
    assert shared is not None and shared > 0.9


def test_one_class_everywhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one class"):
        run(tmp_path, "contract.label.positive=['0','1','2','3','4']", "contract.label.negative=['9']")


def test_switzerland_has_no_own_model_and_the_table_says_why(tmp_path: Path) -> None:
    done = run(tmp_path, "rounds=1")
    rows = {site.site: site for site in done.result.sites}
    assert rows["switzerland"].own.metrics["auroc"].value is None
    assert "one class" in rows["switzerland"].own.metrics["auroc"].reason
    assert (rows["cleveland"].train_patients, rows["cleveland"].test_patients) == (199, 104)
    assert (rows["hungarian"].train_patients, rows["hungarian"].test_patients) == (172, 89)
    assert (rows["switzerland"].train_patients, rows["switzerland"].test_patients) == (30, 16)
    assert (rows["va"].train_patients, rows["va"].test_patients) == (85, 45)
    assert sum(count for site in rows.values() for count in site.left_out.values()) == 180


def test_the_second_variant_keeps_all_920_patients(tmp_path: Path) -> None:
    done = run(tmp_path, "study=heart_disease_all", "rounds=1")
    assert sum(site.train_patients + site.test_patients for site in done.result.sites) == 920
    assert all(site.left_out == {} for site in done.result.sites)


def test_result_json_says_with_what_it_was_made(tmp_path: Path) -> None:
    data = json.loads((run(tmp_path, "rounds=1").folder.path / "result.json").read_text())
    assert data["environment"]["packages"]["numpy"] and data["environment"]["threads"] == 1
    assert set(data["data_hashes"]) == set(data["split_hashes"]) == {"cleveland", "hungarian", "switzerland", "va"}
    assert "CC BY 4.0" in data["attribution"]


def test_a_site_whose_every_row_is_left_out_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """Nearly nobody outside Cleveland has the number of vessels: the contract leaves every row of the others out."""
    column = "{type: number, meaning: Vessels, unit: '1', minimum: 0, maximum: 3}"
    done = run(tmp_path, f"+contract.columns.ca={column}", "rounds=1", "min_sites=1", "privacy=none")
    reasons = {site.site: site.excluded_because for site in done.result.sites}
    assert reasons["cleveland"] == "" and "no training patient" in reasons.values()
