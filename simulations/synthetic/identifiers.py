"""Invented identifiers for DICOM files, in every place where real ones have been found, and a list of each.

Places follow the attributes of DICOM PS3.15 Table E.1-1 (Basic Application Level Confidentiality Profile): names,
numbers, dates and UIDs in every file; free text, nested sequences or private elements in a third of the files each;
an overlay plane in every seventh; letters burned into the pixels of every ninth.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from wardround.simulations.synthetic.hospitals import Hospital
from wardround.simulations.synthetic.subjects import Subject

OVERLAY_EVERY: Final = 7
BURNED_EVERY: Final = 9
PRIVATE_GROUP: Final = 0x0099
PRIVATE_CREATOR: Final = "WARD SYNTHETIC 1"
BURNED: Final = "PixelData(burned-in)"
_DOCTORS: Final = ("Vorselaar^Ottoline", "Nagatombe^Ignatius", "Pellegrund^Seraphine", "Izquibar^Leocadia")

Pixels = npt.NDArray[Any]


def plant(header: Dataset, subject: Subject, hospital: Hospital, file_number: int) -> dict[str, str]:
    """Write the subject's identifiers into ``header``; what was planted, by place. Pixels are not touched."""
    person, digits = subject.person, f"{hospital.number:02d}{subject.number:05d}"
    doctor = _DOCTORS[subject.number % len(_DOCTORS)]
    planted = {
        "PatientName": f"{person.family}^{person.given}",
        "PatientID": subject.id,
        "PatientBirthDate": f"{person.birth:%Y%m%d}",
        "PatientAddress": person.address,
        "PatientTelephoneNumbers": person.telephone,
        "OtherPatientIDs": person.national_id,
        "AccessionNumber": f"ACC{digits}{file_number:03d}",
        "ReferringPhysicianName": doctor,
        "NameOfPhysiciansReadingStudy": _DOCTORS[(subject.number + 1) % len(_DOCTORS)],
        "OperatorsName": f"Operatrix^{hospital.name.title()}",
        "InstitutionName": f"Synthetic Infirmary {hospital.name.title()}",
        "InstitutionAddress": f"1 Infirmary Hill, {hospital.name.title()}town",
        "StationName": f"STN-{hospital.code}-A",
        "DeviceSerialNumber": f"SN{hospital.number + 1:02d}77310{hospital.number:03d}",
        "StudyDate": f"{subject.examined:%Y%m%d}",
        "StudyID": f"ST{digits}",
    }
    for keyword, value in planted.items():
        setattr(header, keyword, value)
    planted |= _by_turns(header, subject, file_number)
    if file_number % OVERLAY_EVERY == OVERLAY_EVERY - 1:
        planted |= _overlay(header, subject)
    return planted


def _by_turns(header: Dataset, subject: Subject, file_number: int) -> dict[str, str]:
    person = subject.person
    if file_number % 3 == 0:
        header.ImageComments = f"Pt {person.given} {person.family} seen on the ward, call {person.telephone}"
        header.AdditionalPatientHistory = f"{person.family} born {person.birth:%d.%m.%Y}, ID {subject.id}"
        return {
            "ImageComments": header.ImageComments,
            "AdditionalPatientHistory": header.AdditionalPatientHistory,
        }
    if file_number % 3 == 1:
        code, request, original, modified = Dataset(), Dataset(), Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator = f"REQ-{subject.id}", "99LOCAL"
        code.CodeMeaning = f"Chest, {person.family}"
        request.RequestedProcedureDescription = f"For {person.given} {person.family}"
        request.RequestedProcedureCodeSequence = Sequence([code])
        header.RequestAttributesSequence = Sequence([request])
        modified.PatientName = f"{person.family}^{person.given}"
        modified.PatientID = subject.id
        original.ModifiedAttributesSequence = Sequence([modified])
        original.AttributeModificationDateTime = f"{subject.examined:%Y%m%d}120000"
        original.ModifyingSystem, original.SourceOfPreviousValues = "SYNTHETIC", ""
        original.ReasonForTheAttributeModification = "CORRECT"
        header.OriginalAttributesSequence = Sequence([original])
        return {
            "RequestAttributesSequence": request.RequestedProcedureDescription,
            "RequestAttributesSequence/RequestedProcedureCodeSequence/CodeValue": code.CodeValue,
            "RequestAttributesSequence/RequestedProcedureCodeSequence/CodeMeaning": code.CodeMeaning,
            "OriginalAttributesSequence/ModifiedAttributesSequence/PatientName": str(modified.PatientName),
        }
    block = header.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    private = {
        0x01: ("LO", f"{person.family}, {person.given}"),
        0x02: ("LO", f"MRN {subject.id}"),
        0x03: ("UN", f"tel {person.telephone}"),
    }
    for element, (representation, text) in private.items():
        block.add_new(element, representation, text.encode() if representation == "UN" else text)
    return {f"private({PRIVATE_GROUP:04x},{element:02x})": text for element, (_, text) in private.items()}


def _overlay(header: Dataset, subject: Subject) -> dict[str, str]:
    text = f"{subject.person.family} {subject.id}"
    plane = _letters(text, (int(header.Rows), int(header.Columns)))
    header.add_new((0x6000, 0x0010), "US", plane.shape[0])
    header.add_new((0x6000, 0x0011), "US", plane.shape[1])
    header.add_new((0x6000, 0x0022), "LO", f"Marks for {subject.person.family}")
    header.add_new((0x6000, 0x0040), "CS", "G")
    header.add_new((0x6000, 0x0050), "SS", [1, 1])
    header.add_new((0x6000, 0x0100), "US", 1)
    header.add_new((0x6000, 0x0102), "US", 0)
    packed = np.packbits(plane.ravel(), bitorder="little").tobytes()
    header.add_new((0x6000, 0x3000), "OW", packed + b"\0" * (len(packed) % 2))
    return {"OverlayData(6000,3000)": text, "OverlayDescription(6000,0022)": f"Marks for {subject.person.family}"}


def burn(pixels: Pixels, subject: Subject, file_number: int, white: int) -> dict[str, str]:
    """Burn the subject's name into every ninth picture's ``pixels``, in place; what was planted."""
    if file_number % BURNED_EVERY != BURNED_EVERY - 1:
        return {}
    text = f"{subject.person.family} {subject.person.birth:%Y}"
    pixels[_letters(text, (pixels.shape[0], pixels.shape[1]))] = white
    return {BURNED: text}


def _letters(text: str, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    picture = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(picture).text((2, 2), text, fill=1)
    return np.array(picture, bool)
