"""Short names of code systems, so that a specification can say ``loinc:718-7``.

URLs are those of hl7.org/fhir/R4/terminologies-systems.html, object identifiers those of the HL7 OID registry, and the
names of HL7 v2 are those of its table 0396.
"""

import re
from collections.abc import Mapping
from typing import Final

from wardround.protocol.errors import UsageError

FHIR_SYSTEMS: Final[Mapping[str, str]] = {
    "http://loinc.org": "loinc",
    "urn:oid:2.16.840.1.113883.6.1": "loinc",
    "http://snomed.info/sct": "snomed",
    "urn:oid:2.16.840.1.113883.6.96": "snomed",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "rxnorm",
    "urn:oid:2.16.840.1.113883.6.88": "rxnorm",
    "http://hl7.org/fhir/sid/icd-10": "icd10",
    "http://hl7.org/fhir/sid/icd-10-cm": "icd10",
    "http://hl7.org/fhir/sid/icd-10-de": "icd10",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm": "icd10",
    "http://fhir.de/CodeSystem/dimdi/icd-10-gm": "icd10",
    "urn:oid:2.16.840.1.113883.6.3": "icd10",
    "urn:oid:2.16.840.1.113883.6.90": "icd10",
    "http://hl7.org/fhir/sid/icd-9-cm": "icd9",
    "urn:oid:2.16.840.1.113883.6.103": "icd9",
    "http://www.whocc.no/atc": "atc",
    "http://fhir.de/CodeSystem/bfarm/atc": "atc",
    "urn:oid:2.16.840.1.113883.6.73": "atc",
    "http://hl7.org/fhir/sid/ndc": "ndc",
    "http://hl7.org/fhir/sid/cvx": "cvx",
    "http://www.ama-assn.org/go/cpt": "cpt",
    "http://www.cms.gov/Medicare/Coding/ICD10": "icd10pcs",
    "http://hl7.org/fhir/sid/icd-10-pcs": "icd10pcs",
    "http://fhir.de/CodeSystem/bfarm/ops": "ops",
    "http://terminology.hl7.org/CodeSystem/v3-ActCode": "act",
}
V2_SYSTEMS: Final[Mapping[str, str]] = {
    "LN": "loinc",
    "LOINC": "loinc",
    "SCT": "snomed",
    "SNM": "snomed",
    "SNOMED": "snomed",
    "RXNORM": "rxnorm",
    "I10": "icd10",
    "I10C": "icd10",
    "ICD10": "icd10",
    "ICD-10": "icd10",
    "I9": "icd9",
    "I9C": "icd9",
    "ICD9": "icd9",
    "I10P": "icd10pcs",
    "ATC": "atc",
    "WC": "atc",
    "NDC": "ndc",
    "CVX": "cvx",
    "C4": "cpt",
    "CPT": "cpt",
    "": "local",
    "L": "local",
}
_NAME: Final = re.compile(r"[a-z0-9]+")


def with_own(known: Mapping[str, str], own: Mapping[str, str] | None) -> dict[str, str]:
    """``known`` and a site's own systems. Raises UsageError where a short name is none."""
    if own is None:
        return dict(known)
    right = isinstance(own, Mapping) and all(isinstance(system, str) for system in own)
    if not right or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in own.values()):
        raise UsageError(
            "option 'systems' is not what it must be",
            "write the system as the source names it, and a short name of small letters and digits: {SYSTEM: name}",
        )
    return {**known, **own}
