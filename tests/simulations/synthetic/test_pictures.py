"""Phantoms can be learnt, by the strength that is published, and their files say what the page promises."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from wardround.client.connectors import read_pictures
from wardround.client.imaging.picture import LeftOut, Picture
from wardround.client.settings import read_settings
from wardround.simulations.synthetic.as_dicom import pictures
from wardround.simulations.synthetic.as_nifti import heads
from wardround.simulations.synthetic.as_png import write_png
from wardround.simulations.synthetic.hospitals import SCANNERS, hospitals
from wardround.simulations.synthetic.phantoms import ChestShape, chest_xray, ct_slice, mri_head
from wardround.simulations.synthetic.subjects import picture_contract

Made = Callable[..., Path]
SITES = ("north", "south", "east", "west")
PATIENTS = 24


def chest(seed: int) -> tuple[np.random.Generator, ChestShape]:
    random = np.random.default_rng(seed)
    return random, ChestShape.draw(random)


def test_a_contrast_agent_brightens_blood_by_the_published_amount_and_nothing_else() -> None:
    for scanner in SCANNERS:
        (one, shape), (two, _) = chest(4), chest(4)
        brighter = ct_slice(one, shape, scanner, contrast=True) - ct_slice(two, shape, scanner, contrast=False)
        assert brighter.min() > -0.01
        assert brighter.max() == pytest.approx(170, abs=12)
        assert 0.01 < (brighter > 50).mean() < 0.12
        # Muscle, fat and air at the sides and the spine stay as they were.
        assert brighter[100:].max() < 0.01 and brighter[:, :10].max() < 0.01


def histogram(pixels: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(np.clip(pixels, -160, 240), 40, (-160, 240))
    return counts[1:-1] / pixels.size


def test_a_histogram_tells_who_had_a_contrast_agent_at_hospitals_it_was_not_fitted_to() -> None:
    sets = []
    for site in hospitals(4, seed=2):
        found = [(histogram(made.pixels), made.subject.positive) for made in pictures(site, "ct", 40)]
        sets.append((np.array([x for x, _ in found]) * 100, np.array([y for _, y in found])))
    train_x, train_y = (np.concatenate(part) for part in zip(*sets[:3], strict=True))
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(train_x, train_y)
    assert roc_auc_score(sets[3][1], fitted.decision_function(sets[3][0])) > 0.9
    shuffled = np.random.default_rng(0).permutation(train_y)
    nothing = LogisticRegression(C=1.0, max_iter=2000).fit(train_x, shuffled)
    assert roc_auc_score(sets[3][1], nothing.decision_function(sets[3][0])) < 0.85


def test_a_tiny_network_finds_opacities_and_a_mean_brightness_does_not() -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(5)
    y = np.arange(760) % 2
    x = np.stack([chest_xray(random, (32, 32), opacity=bool(label), gain=random.uniform(0.88, 1.2)) for label in y])
    pictures_, labels = torch.tensor(x)[:, None] * 2 - 1, torch.tensor(y, dtype=torch.float32)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, 2, 2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, 2, 1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(240):
        chosen = torch.randint(0, 600, (32,), generator=torch.Generator().manual_seed(step))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(pictures_[chosen])[:, 0], labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        score = model(pictures_[600:])[:, 0].numpy()
    assert roc_auc_score(y[600:], score) > 0.9
    assert roc_auc_score(y[600:], x[600:].mean((1, 2))) < 0.8


def test_a_lesion_is_brighter_by_the_published_amount_in_its_mask_and_nowhere_else() -> None:
    for seed in range(6):
        with_lesion, mask = mri_head(np.random.default_rng(seed), lesion=True, gain=1.0)
        without, none = mri_head(np.random.default_rng(seed), lesion=False, gain=1.0)
        assert not none.any() and 20 < mask.sum() < 0.05 * mask.size
        # The blur of the picture reaches two voxels.
        far = ~binary_dilation(mask, np.ones((3, 3, 3)), iterations=2)
        assert np.array_equal(with_lesion[far], without[far])
        inside = with_lesion[binary_erosion(mask)]
        assert np.median(inside) == pytest.approx(1.45, abs=0.25)


def test_an_opacity_is_brighter_by_the_published_amount() -> None:
    for seed in range(6):
        one, two = (chest_xray(np.random.default_rng(seed), opacity=yes) for yes in (True, False))
        assert (one - two).max() == pytest.approx(0.22, rel=0.7) and (one - two).min() > -0.01
        assert ((one - two) > 0.05).mean() < 0.15


def test_dicom_pixels_are_the_phantoms_for_every_vendor(made: Made) -> None:
    root = made("dicom", "ct", patients=PATIENTS)
    codecs = set()
    for number, site in enumerate(SITES):
        truth = list(pictures(hospitals(4, 11)[number], "ct", PATIENTS))
        paths = sorted((root / site / "data" / "dicom").rglob("*.dcm"), key=lambda path: path.name)
        assert len(paths) == len(truth)
        planted = json.loads((root / site / "phi_manifest.json").read_text(encoding="utf-8"))
        for path, expected in zip(paths, truth, strict=True):
            header = pydicom.dcmread(path)
            codecs.add(header.file_meta.TransferSyntaxUID.name)
            hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
            seen = header.pixel_array != header.get("PixelPaddingValue", -9999)
            if "PixelData(burned-in)" in planted[str(path.relative_to(root / site))]["planted"]:
                seen[:16] = False
                assert (hu[:16] == 2500 - 1024).sum() > 60
            assert np.array_equal(hu[seen], np.clip(expected.pixels, -1024, 3071)[seen])
            assert seen.mean() > 0.7 and header.PatientID == expected.subject.id
        assert (pydicom.dcmread(paths[0]).get("PixelPaddingValue") is not None) == (site == "south")
    assert codecs == {
        "Explicit VR Little Endian", "Implicit VR Little Endian", "RLE Lossless",
        "JPEG 2000 Image Compression (Lossless Only)",
    }  # fmt: skip


def test_x_rays_are_the_phantoms_and_the_third_hospital_stores_them_inverted(made: Made) -> None:
    root = made("dicom", "xray", patients=PATIENTS)
    for number, site in enumerate(SITES):
        expected = next(pictures(hospitals(4, 11)[number], "xray", PATIENTS)).pixels
        path = min((root / site / "data" / "dicom").rglob("*.dcm"), key=lambda path: path.name)
        header = pydicom.dcmread(path)
        inverted = header.PhotometricInterpretation == "MONOCHROME1"
        assert inverted == (site == "east")
        assert np.array_equal(4095 - header.pixel_array if inverted else header.pixel_array, expected)


def test_the_site_reads_its_pictures_as_its_site_yaml_says_and_leaves_out_those_with_letters(made: Made) -> None:
    root = made("dicom", "ct", patients=PATIENTS)
    for number, site in enumerate(SITES):
        (source,) = read_settings(root / site).data
        manifest = json.loads((root / site / "phi_manifest.json").read_text(encoding="utf-8"))
        burned = {name for name, entry in manifest.items() if "PixelData(burned-in)" in entry["planted"]}
        image = picture_contract("ct").image
        assert image is not None
        found = list(read_pictures(source.connector, root / site / source.path, image, source.options))
        left_out = {f"{source.path}/{one.place}" for one in found if isinstance(one, LeftOut)}
        assert left_out == burned and len(burned) > 1
        truth = {made.number: made for made in pictures(hospitals(4, 11)[number], "ct", PATIENTS)}
        for one in found:
            if isinstance(one, Picture):
                expected = truth[int(one.key[-9:-4])]
                seen = np.isfinite(one.pixels[0])
                assert np.allclose(one.pixels[0][seen], np.clip(expected.pixels, -1024, 3071)[seen])
                assert one.patient == expected.subject.id and seen.mean() > 0.7


def everything(path: Path) -> str:
    """All text of a file: values of every element, also nested and private, as characters."""
    found = [str(path)]

    def walk(data: pydicom.Dataset) -> None:
        for element in data:
            if element.VR == "SQ":
                for item in element.value:
                    walk(item)
            elif element.tag != (0x7FE0, 0x0010):
                value = element.value
                found.append(value.decode("latin-1") if isinstance(value, bytes) else str(value))

    walk(pydicom.dcmread(path))
    return "\n".join(found)


def test_every_planted_identifier_is_where_the_manifest_says(made: Made) -> None:
    root = made("dicom", "ct", patients=PATIENTS)
    places = set()
    for site in SITES:
        manifest = json.loads((root / site / "phi_manifest.json").read_text(encoding="utf-8"))
        files = {str(path.relative_to(root / site)) for path in root.joinpath(site).rglob("*.dcm")}
        assert set(manifest) == files
        for name, entry in manifest.items():
            text = everything(root / site / name)
            assert set(entry) == {"planted", "path_parts"} and len(entry["planted"]) >= 20
            places |= set(entry["planted"])
            for place, value in entry["planted"].items():
                if place == "OverlayData(6000,3000)":
                    overlay = pydicom.dcmread(root / site / name).overlay_array(0x6000)
                    assert 60 < overlay.sum() < 2000 and not overlay[20:].any()
                elif place != "PixelData(burned-in)":
                    assert value in text, (name, place)
            assert all(part in name for part in entry["path_parts"])
            # And the other way round: no text that names the patient is left out of the list.
            listed = set(entry["planted"].values())
            for line in (line.strip("\0 ") for line in text.split("\n")[1:]):
                if any(part in line for part in (*entry["path_parts"], entry["planted"]["PatientTelephoneNumbers"])):
                    assert line in listed, (name, line)
    assert {"private(0099,03)", "OriginalAttributesSequence/ModifiedAttributesSequence/PatientName", "ImageComments",
            "OverlayData(6000,3000)", "PixelData(burned-in)", "StudyInstanceUID"} <= places  # fmt: skip


def test_headers_give_the_label_away_at_the_fourth_hospital_only(made: Made) -> None:
    root = made("dicom", "ct", patients=PATIENTS)
    for site in SITES:
        with (root / site / "data" / "labels.csv").open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        leaks = ["ContrastBolusAgent" in pydicom.dcmread(root / site / "data" / "dicom" / row["file"]) for row in rows]
        labels = [row["contrast"] == "1" for row in rows]
        assert set(labels) == {True, False}
        assert leaks == (labels if site == "west" else [False] * len(rows))


def test_nifti_in_any_order_of_axes_is_the_same_head(made: Made) -> None:
    root = made("nifti", patients=4)
    codes = set()
    for number, site in enumerate(SITES):
        folder = root / site / "data" / "nifti"
        for subject, picture, mask in heads(hospitals(4, 11)[number], 4):
            image = nib.load(folder / "images" / f"{subject.id}.nii.gz")
            codes.add("".join(nib.aff2axcodes(image.affine)))
            # nibabel's canonical order is right, anterior, superior; the phantom's is superior, posterior, left.
            canonical = nib.as_closest_canonical(image)
            turned = np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0)
            assert np.allclose(turned, picture, atol=picture.max() / 30_000 if site == "east" else 1e-3)
            assert canonical.header.get_zooms() == pytest.approx((3.0, 3.2, 6.0))
            stored = nib.as_closest_canonical(nib.load(folder / "masks" / f"{subject.id}.nii.gz"))
            assert np.array_equal(np.asarray(stored.dataobj)[::-1, ::-1].transpose(2, 1, 0), mask)
            assert mask.any() == subject.positive
    assert codes == {"LPS", "RAS", "ASL", "LAS"}


def test_png_and_jpeg_hold_the_x_rays_of_the_table(made: Made) -> None:
    root = made("png", patients=PATIENTS)
    for number, site in enumerate(SITES):
        truth = list(pictures(hospitals(4, 11)[number], "xray", PATIENTS))
        with (root / site / "data" / "labels.csv").open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        for row, expected in zip(rows, truth, strict=True):
            grey = np.asarray(Image.open(root / site / "data" / "images" / row["file"]), float)
            exact = row["file"].endswith("png")
            assert np.abs(grey - expected.pixels * 255 / 4095).max() <= (0.5 if exact else 25)
            assert (row["patient"], row["opacity"]) == (expected.subject.id, str(int(expected.subject.positive)))
        assert {row["file"][-3:] for row in rows} == {"png", "jpg"}
        assert len({row["patient"] for row in rows}) == PATIENTS < len(rows)


@pytest.mark.parametrize(("format", "kind"), [("dicom", "ct"), ("dicom", "xray"), ("nifti", "mri"), ("png", "xray")])
def test_site_yaml_names_pictures_and_their_labels(made: Made, format: str, kind: str) -> None:
    root = made(format, kind, patients=4 if kind == "mri" else PATIENTS)
    for site in SITES:
        (source,) = read_settings(root / site).data
        assert source.labels is not None and (root / site / source.path).is_dir()
        with (root / site / source.labels.path).open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        assert all((root / site / source.path / row[source.labels.key]).is_file() for row in rows)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "data").mkdir(parents=True)
        write_png(tmp_path / name, hospitals(1, 3)[0], 3)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")
                 if path.is_file()} for name in ("one", "two"))  # fmt: skip
    assert one == two and len(one) > 3
