"""DICOMweb (PS3.18): what a PACS lists by QIDO-RS, fetched one instance at a time by WADO-RS; nothing lies on a disk.

The path names a YAML file with the connection, so that no password lies in ``site.yaml``::

    url: https://pacs.example.org:8443/dicom-web
    user: reader
    password_file: pacs.password     # beside this file, for its owner only; or token_file
    ca_file: hospital-ca.pem
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from wardround.client.connectors.dicom import KEYWORDS, LabelsBy, check_name, silence
from wardround.client.imaging.header import text
from wardround.client.imaging.picture import LeftOut, Listed, Pictures
from wardround.client.imaging.pixels import Wanted, pictures_of
from wardround.client.imaging.volumes import volumes_of
from wardround.protocol.contract import ImageInput
from wardround.protocol.errors import UsageError

NOT_GIVEN: Final = "listed by the archive and not given"

SEARCH: Final = ("StudyDate", "ModalitiesInStudy", "AccessionNumber", "PatientID", "StudyInstanceUID")
"""What studies can be chosen by (PS3.18, table 10.6.1-5)."""


def read_dicomweb(
    path: Path,
    image: ImageInput,
    *,
    labels_by: LabelsBy = "sop",
    search: Mapping[str, Any] | None = None,
    keep_text: bool = False,
    describe: bool = False,
) -> Iterator[Listed]:
    """The pictures of every study that ``search`` finds, in the order of UIDs; volumes for a plan of three axes.

    Args:
        labels_by: what the label table calls a picture: a field of its header; there are no files.
        search: DICOM keywords and what QIDO-RS matches them with: ``StudyDate: 20200101-20201231``. None: all studies.
        keep_text: True takes pictures into which text may be burned; for a site that has cleaned them.
        describe: bring what ``described`` makes of each header, for the check of a site's data.

    Raises:
        UsageError: the file, an option, or the archive's refusal.
        Unavailable: the archive cannot be reached, or broke off and did not come back.
    """
    if labels_by not in get_args(LabelsBy) or labels_by == "file":
        raise UsageError("'labels_by' is not a way to name a picture", f"one of {', '.join(KEYWORDS)}")
    check_name(labels_by, image)
    chosen = {str(name): str(value) for name, value in (search or {}).items()}
    for name in chosen:
        if name not in SEARCH:
            raise UsageError("'search' names what studies cannot be chosen by", f"one of {', '.join(SEARCH)}")
    return _listed(path, image, labels_by, chosen, keep_text, describe)


def patients_in_archive(path: Path, *, search: Mapping[str, Any] | None = None, **_: Any) -> Iterator[str]:
    """The patient of every study that ``search`` finds, as the archive lists it; no instance is fetched."""
    from wardround.client.connectors.archive import Archive

    with closing(Archive(path)) as archive:
        for _study, patient in archive.studies({str(name): str(value) for name, value in (search or {}).items()}):
            yield patient


def _listed(
    path: Path, image: ImageInput, labels_by: str, search: dict[str, str], keep_text: bool, describe: bool
) -> Iterator[Listed]:
    # requests takes a moment to import, and most sites have folders.
    from wardround.client.connectors.archive import Archive
    from wardround.client.connectors.web import Gone

    wanted = Wanted(image, "", keep_text, describe)

    def named(dataset: Any, _: str | None = None) -> str:
        return text(dataset, KEYWORDS[labels_by])

    def fetched(study: str, series: str, instance: str) -> Any:
        try:
            return archive.instance(study, series, instance)
        except Gone:
            return LeftOut(NOT_GIVEN, instance, passing=True)

    def pictures(study: str, series: str, instance: str) -> Pictures:
        dataset = fetched(study, series, instance)
        if isinstance(dataset, LeftOut):
            yield dataset
        else:
            yield from pictures_of(dataset, replace(wanted, key=named(dataset)), instance)

    def volumes(study: str, series: str, instances: list[str]) -> Pictures:
        slices = ((fetched(study, series, instance), instance) for instance in instances)
        yield from volumes_of(slices, wanted, named, series)

    silence()
    with closing(Archive(path)) as archive:
        for study, patient in sorted(archive.studies(search)):
            for series in sorted(archive.series(study)):
                instances = sorted(archive.instances(study, series))
                # What an instance holds never changes under its UID (PS3.5, B.1); whose it is an archive may mend.
                about = (study, series, patient)
                if len(image.size) == 3:
                    version = "\n".join((*about, *instances))
                    yield Listed.of(series, version, partial(volumes, study, series, instances))
                    continue
                for instance in instances:
                    yield Listed.of(instance, "\n".join(about), partial(pictures, study, series, instance), instance)
