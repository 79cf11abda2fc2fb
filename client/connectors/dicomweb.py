"""DICOMweb (PS3.18): what a PACS lists by QIDO-RS, fetched one instance at a time by WADO-RS; nothing lies on a disk.

The path names a YAML file with the connection, so that no password lies in ``site.yaml``::

    url: https://pacs.example.org:8443/dicom-web
    user: reader
    password_file: pacs.password     # beside this file, for its owner only; or token_file
    ca_file: hospital-ca.pem
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, get_args

from wardround.client.connectors.dicom import KEYWORDS, TWICE, LabelsBy, check_name, silence
from wardround.client.imaging.header import text
from wardround.client.imaging.picture import LeftOut, Pictures
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
) -> Pictures:
    """The pictures of every study that ``search`` finds, in the order of UIDs; volumes for a plan of three axes.

    Args:
        labels_by: what the label table calls a picture: a field of its header; there are no files.
        search: DICOM keywords and what QIDO-RS matches them with: ``StudyDate: 20200101-20201231``. None: all studies.
        keep_text: True takes pictures into which text may be burned; for a site that has cleaned them.

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
    return _read(path, image, labels_by, chosen, keep_text)


def patients_in_archive(path: Path, *, search: Mapping[str, Any] | None = None, **_: Any) -> Iterator[str]:
    """The patient of every study that ``search`` finds, as the archive lists it; no instance is fetched."""
    from wardround.client.connectors.archive import Archive

    with closing(Archive(path)) as archive:
        yield from archive.patients({str(name): str(value) for name, value in (search or {}).items()})


def _read(path: Path, image: ImageInput, labels_by: str, search: dict[str, str], keep_text: bool) -> Pictures:
    # requests takes a moment to import, and most sites have folders.
    from wardround.client.connectors.archive import Archive, Gone

    silence()
    seen: set[str] = set()

    def fetched(study: str, series: str) -> Iterator[tuple[Any, str]]:
        for instance in sorted(archive.instances(study, series)):
            if instance in seen:
                yield TWICE, instance
                continue
            seen.add(instance)
            try:
                yield archive.instance(study, series, instance), instance
            except Gone:
                yield NOT_GIVEN, instance

    def named(dataset: Any, _: str | None = None) -> str:
        return text(dataset, KEYWORDS[labels_by])

    with closing(Archive(path)) as archive:
        for study in sorted(archive.studies(search)):
            for series in sorted(archive.series(study)):
                if len(image.size) == 3:
                    yield from volumes_of(fetched(study, series), Wanted(image, "", keep_text), named, series)
                    continue
                for dataset, place in fetched(study, series):
                    if isinstance(dataset, str):
                        yield LeftOut(dataset, place)
                    else:
                        yield from pictures_of(dataset, Wanted(image, named(dataset), keep_text), place)
