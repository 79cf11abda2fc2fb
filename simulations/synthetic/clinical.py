"""What the synthetic patients have, in codes, and what it does to them: the published effects.

The cohort: patients admitted with heart failure. The outcome ``kidney_injury`` is a diagnosis of acute kidney injury
1 to 30 days after the admission. Its log odds are ::

    INTERCEPT + sum over columns of EFFECTS[column] * (value - center) / scale

with center and scale of ``CONTRACT``, so a logistic regression on the contract's features estimates ``EFFECTS``
directly. ``atrial_fibrillation`` has no effect. Death follows an exponential hazard per day ::

    BASE_RATE * exp(sum of HAZARDS[column] * (value - center) / scale)

censored at the end of follow-up (uniform, 200 to 1500 days), which depends on nothing. The numbers were chosen to be
learnable; they are no medical knowledge.

Codes: LOINC for measurements, SNOMED CT for conditions, RxNorm for drugs, UCUM for units, and the standard concepts
of OHDSI for each.
"""

from dataclasses import dataclass
from typing import Any, Final

from wardround.protocol.contract import CodeColumn, Column, CompleteCases, DataContract, FixedValue, NumberColumn
from wardround.protocol.labels import ClassLabel, SurvivalLabel

INTERCEPT: Final = -2.4
EFFECTS: Final = {
    "age": 0.40,
    "sex": 0.20,
    "systolic": -0.30,
    "heart_rate": 0.15,
    "creatinine": 0.90,
    "hemoglobin": -0.35,
    "potassium": 0.25,
    "diabetes": 0.50,
    "atrial_fibrillation": 0.0,
    "furosemide": 0.60,
}
BASE_RATE: Final = 0.0004
HAZARDS: Final = {"age": 0.50, "creatinine": 0.40, "hemoglobin": -0.30}
FOLLOW_UP: Final = (200, 1500)
"""Days until the last contact of a patient who lives, both ends included."""

OUTCOME_DAYS: Final = 30
CREATININE_MOLAR_MASS: Final = 113.12
"""g/mol."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A code in its terminology, and OHDSI's standard concept for it."""

    system: str
    code: str
    name: str
    concept_id: int
    domain: str
    concept_class: str

    @property
    def written(self) -> str:
        """As a CohortSpec writes it."""
        return f"{self.system}:{self.code}"


def _loinc(code: str, name: str, concept_id: int, kind: str = "Lab Test") -> Concept:
    return Concept("loinc", code, name, concept_id, "Measurement", kind)


def _snomed(code: str, name: str, concept_id: int) -> Concept:
    return Concept("snomed", code, name, concept_id, "Condition", "Clinical Finding")


LABORATORY: Final = {
    "creatinine": _loinc("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", 3016723),
    "hemoglobin": _loinc("718-7", "Hemoglobin [Mass/volume] in Blood", 3000963),
    "potassium": _loinc("2823-3", "Potassium [Moles/volume] in Serum or Plasma", 3023103),
}
CREATININE_MOLES: Final = _loinc("14682-9", "Creatinine [Moles/volume] in Serum or Plasma", 3020564)
"""Where the unit is an amount: LOINC gives that another code than the mass."""

VITALS: Final = {
    "systolic": _loinc("8480-6", "Systolic blood pressure", 3004249, "Clinical Observation"),
    "heart_rate": _loinc("8867-4", "Heart rate", 3027018, "Clinical Observation"),
}
UNITS: Final = {
    "creatinine": "mg/dL",
    "hemoglobin": "g/dL",
    "potassium": "mmol/L",
    "systolic": "mm[Hg]",
    "heart_rate": "/min",
}
HEART_FAILURE: Final = _snomed("84114007", "Heart failure", 316139)
DIABETES: Final = _snomed("44054006", "Type 2 diabetes mellitus", 201826)
ATRIAL_FIBRILLATION: Final = _snomed("49436004", "Atrial fibrillation", 313217)
KIDNEY_INJURY: Final = _snomed("14669001", "Acute renal failure syndrome", 197320)
ANY_DIABETES: Final = _snomed("73211009", "Diabetes mellitus", 201820)
HEART_DISEASE: Final = _snomed("56265001", "Heart disease", 321588)
FUROSEMIDE: Final = Concept("rxnorm", "313988", "furosemide 40 MG Oral Tablet", 957136, "Drug", "Clinical Drug")
FUROSEMIDE_INGREDIENT: Final = Concept("rxnorm", "4603", "furosemide", 956874, "Drug", "Ingredient")
PARENTS: Final = {
    DIABETES: ANY_DIABETES,
    HEART_FAILURE: HEART_DISEASE,
    ATRIAL_FIBRILLATION: HEART_DISEASE,
    FUROSEMIDE: FUROSEMIDE_INGREDIENT,
}


def _number(name: str, meaning: str, unit: str, low: float, high: float, center: float, scale: float) -> NumberColumn:
    missing = FixedValue(value=center) if name in LABORATORY else CompleteCases()
    return NumberColumn(
        name=name, meaning=meaning, unit=unit, minimum=low, maximum=high, center=center, scale=scale, missing=missing
    )


def _flag(name: str, meaning: str, zero: str = "no", one: str = "yes") -> CodeColumn:
    return CodeColumn(name=name, meaning=meaning, codes={"0": zero, "1": one}, reference="0")


COLUMNS: Final[tuple[Column, ...]] = (
    _number("age", "Age at admission", "a", 18, 100, 70, 10),
    _flag("sex", "Sex", "female", "male"),
    _number("systolic", "Systolic blood pressure", "mm[Hg]", 60, 250, 130, 20),
    _number("heart_rate", "Heart rate", "/min", 30, 200, 80, 15),
    _number("creatinine", "Creatinine in serum, last in the year before admission", "mg/dL", 0.3, 12, 1.1, 0.4),
    _number("hemoglobin", "Hemoglobin in blood, last in the year before admission", "g/dL", 4, 20, 13, 1.8),
    _number("potassium", "Potassium in serum, last in the year before admission", "mmol/L", 2.5, 7, 4.3, 0.5),
    _flag("diabetes", "Type 2 diabetes, known at admission"),
    _flag("atrial_fibrillation", "Atrial fibrillation, known at admission"),
    _flag("furosemide", "Furosemide in the 90 days before admission"),
)
CONTRACT: Final = DataContract(
    columns=COLUMNS,
    label=ClassLabel(
        column="kidney_injury",
        meaning="Acute kidney injury within 30 days of admission",
        positive=("1",),
        negative=("0",),
    ),
    patient_id="patient",
)
SURVIVAL_CONTRACT: Final = CONTRACT.model_copy(
    update={
        "label": SurvivalLabel(
            time="follow_up_days", event="died", meaning="Death of any cause", unit="d", maximum_time=FOLLOW_UP[1]
        )
    }
)
"""For tables only: a cohort specification has no time to an event."""


def cohort_options(*, drugs: bool = True, descendants: bool = False) -> dict[str, Any]:
    """The CohortSpec that finds ``CONTRACT``'s columns in the events.

    Args:
        drugs: whether the format carries drugs (ADT and ORU messages do not).
        descendants: name OHDSI's parents of diabetes and furosemide, whose descendants the patients have.
    """
    known: dict[str, Any] = {"from": "condition", "take": "exists"}
    columns: dict[str, Any] = {"age": {"from": "age"}, "sex": {"from": "sex"}}
    for name, concept in (VITALS | LABORATORY).items():
        codes = [concept.written] + ([CREATININE_MOLES.written] if name == "creatinine" else [])
        columns[name] = {"from": "measurement", "codes": codes, "take": "last", "unit": UNITS[name], "days_before": 365}
    columns["creatinine"]["molar_mass"] = CREATININE_MOLAR_MASS
    diabetes = f"concept:{ANY_DIABETES.concept_id}" if descendants else DIABETES.written
    columns["diabetes"] = known | {"codes": [diabetes]}
    columns["atrial_fibrillation"] = known | {"codes": [ATRIAL_FIBRILLATION.written]}
    if drugs:
        furosemide = f"concept:{FUROSEMIDE_INGREDIENT.concept_id}" if descendants else FUROSEMIDE.written
        columns["furosemide"] = {"from": "drug", "codes": [furosemide], "take": "exists", "days_before": 90}
    columns["kidney_injury"] = known | {
        "codes": [KIDNEY_INJURY.written],
        "days_before": 0,
        "days_after": OUTCOME_DAYS,
    }
    return {"index": {"kind": "condition", "codes": [HEART_FAILURE.written], "take": "first"}, "columns": columns}
