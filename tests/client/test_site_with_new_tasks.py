"""Volumes, masks, frozen networks and weights files in a site's own folder, from its archive to its cohort."""

import json
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from wardround.client.admission import admit, cohort_of
from wardround.client.cache import CACHE
from wardround.client.connectors import Cohort
from wardround.client.limits import unfit_here
from wardround.client.settings import read_settings
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.members import Members
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.parameters import initial_weights
from wardround.protocol.plan import StudyPlan
from wardround.simulations.synthetic.cohort import make_cohort

PATIENTS = 14
PROBE = [
    "study=brain_mri", "task=probe", "~task.widths", "task.size=[12,32,32]", "task.network.widths=[4,8]",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    """A hospital with an archive of NIfTI volumes and masks, as ``make-cohort`` writes it."""
    make_cohort(tmp_path / "made", format="nifti", kind="mri", sites=1, patients=PATIENTS, seed=4)
    made = tmp_path / "made" / "north"
    site = SiteFolder.create(tmp_path / "north", "north", [Identity.generate("anna").public])
    (made / "data").rename(site.path / "data")
    (site.path / "site.yaml").write_text((made / "site.yaml").read_text())
    return site


@pytest.fixture
def members(folder: SiteFolder) -> Iterator[Members]:
    store = open_store(folder.database)
    found = Members(store, folder.patients_key())
    admit(folder, read_settings(folder.path), found, "patient")
    yield found
    store.close()


def plan_of(*words: str) -> StudyPlan:
    configuration = parse_configuration(compose_configuration(list(words)))
    return make_plan(configuration, dict.fromkeys(("east", "north", "south"), 50), date(2026, 11, 29))


def opened(plan: StudyPlan, folder: SiteFolder, members: Members) -> Cohort:
    return cohort_of(plan, folder, read_settings(folder.path), members)


def test_volumes_and_their_masks_become_a_cohort(folder: SiteFolder, members: Members) -> None:
    cohort = opened(plan_of("study=brain_lesion"), folder, members)
    assert cohort.excluded == {} and cohort.train.patients + cohort.test.patients == PATIENTS
    assert cohort.train.features.shape[1:] == (2, 12, 32, 32)
    marked = np.concatenate([part.features[:, 1] for part in (cohort.train, cohort.test)])
    assert set(np.unique(marked)) == {0.0, 1.0}
    # Whoever has a lesion by the table has a marked voxel, and nobody else: the two ways agree.
    lesion = opened(plan_of("study=brain_mri"), folder, members)
    assert (cohort.train_ids, cohort.test_ids) != (None, None)
    for with_mask, ids, with_class, same in (
        (cohort.train, cohort.train_ids, lesion.train, lesion.train_ids),
        (cohort.test, cohort.test_ids, lesion.test, lesion.test_ids),
    ):
        # One volume a patient; the two readings put patients into different orders.
        assert ids is not None and same is not None and set(ids) == set(same)
        order = [same.index(id_) for id_ in ids]
        assert np.array_equal(with_mask.features[:, 0], with_class.features[order, 0])
        assert (with_mask.features[:, 1].any(axis=(1, 2, 3)) == (with_class.targets[order, 0] > 0)).mean() > 0.9


def test_a_frozen_network_leaves_its_features_in_the_cache_and_no_pixels(folder: SiteFolder, members: Members) -> None:
    plan = plan_of(*PROBE)
    cohort = opened(plan, folder, members)
    assert cohort.train.features.shape[1:] == (8,)
    kept = [json.loads(about.read_text()) for about in (folder.path / CACHE).glob("*/about.json")]
    assert len(kept) == 1
    assert task_from(plan).engine.size == 9
    # The same pictures through other weights are other features, under another name.
    other = opened(plan_of(*PROBE, "task.weights.seed=1"), folder, members)
    assert not np.array_equal(other.train.features, cohort.train.features)
    assert len(list((folder.path / CACHE).glob("*/about.json"))) == 2


def file_for(plan: StudyPlan) -> bytes:
    task = plan.task
    assert task.name == "linear_probe"
    weights = {tensor.name: np.full(tensor.shape, 0.1, np.float32) for tensor in task.frozen}
    weights["convolution0.weight"][0] = initial_weights(plan.layout, "uniform", 1)[0]
    return save(weights)


def test_a_plan_whose_weights_are_not_installed_cannot_run_here(
    folder: SiteFolder, members: Members, tmp_path: Path
) -> None:
    data = file_for(plan_of(*PROBE))
    named = f"{{source:file,sha256:{sha256(data).hexdigest()},licence:CC0-1.0,provenance:'made by this test'}}"
    plan = plan_of(*PROBE, "~task.weights", f"+task.weights={named}")
    assert unfit_here(plan, folder) == f"its weights file {sha256(data).hexdigest()} is not installed here"
    with pytest.raises(UsageError, match="not installed"):
        opened(plan, folder, members)
    (tmp_path / "brought.safetensors").write_bytes(data)
    folder.weights.install(tmp_path / "brought.safetensors")
    assert unfit_here(plan, folder) is None
    assert opened(plan, folder, members).train.features.shape[1:] == (8,)
    # And a file that was changed after it was installed is not opened.
    place = folder.weights.path / f"{sha256(data).hexdigest()}.safetensors"
    place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UsageError, match="has been changed"):
        opened(plan, folder, members)
