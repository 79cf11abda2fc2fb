from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("site", "state", "link", "last_exchange", "last_at", "last_plan", "round_number", "refusals", "version", "behaviour", "pid", "started_at", "reason", "ledger_key", "open_alarms")
    SITE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    LAST_EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_PLAN_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEDGER_KEY_FIELD_NUMBER: _ClassVar[int]
    OPEN_ALARMS_FIELD_NUMBER: _ClassVar[int]
    site: str
    state: str
    link: str
    last_exchange: str
    last_at: str
    last_plan: str
    round_number: int
    refusals: int
    version: str
    behaviour: str
    pid: int
    started_at: float
    reason: str
    ledger_key: str
    open_alarms: int
    def __init__(self, site: _Optional[str] = ..., state: _Optional[str] = ..., link: _Optional[str] = ..., last_exchange: _Optional[str] = ..., last_at: _Optional[str] = ..., last_plan: _Optional[str] = ..., round_number: _Optional[int] = ..., refusals: _Optional[int] = ..., version: _Optional[str] = ..., behaviour: _Optional[str] = ..., pid: _Optional[int] = ..., started_at: _Optional[float] = ..., reason: _Optional[str] = ..., ledger_key: _Optional[str] = ..., open_alarms: _Optional[int] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class StudyRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class Study(_message.Message):
    __slots__ = ("digest", "plan", "received_at", "standing", "refused", "fault", "rounds_charged", "ledger_key", "grants", "domains", "waived", "budgets", "suspended_by")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_CHARGED_FIELD_NUMBER: _ClassVar[int]
    LEDGER_KEY_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    DOMAINS_FIELD_NUMBER: _ClassVar[int]
    WAIVED_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_BY_FIELD_NUMBER: _ClassVar[int]
    digest: str
    plan: bytes
    received_at: str
    standing: str
    refused: str
    fault: str
    rounds_charged: int
    ledger_key: str
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    domains: _containers.RepeatedScalarFieldContainer[str]
    waived: _containers.RepeatedScalarFieldContainer[str]
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    suspended_by: _containers.RepeatedCompositeFieldContainer[Suspension]
    def __init__(self, digest: _Optional[str] = ..., plan: _Optional[bytes] = ..., received_at: _Optional[str] = ..., standing: _Optional[str] = ..., refused: _Optional[str] = ..., fault: _Optional[str] = ..., rounds_charged: _Optional[int] = ..., ledger_key: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., domains: _Optional[_Iterable[str]] = ..., waived: _Optional[_Iterable[str]] = ..., budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., suspended_by: _Optional[_Iterable[_Union[Suspension, _Mapping]]] = ...) -> None: ...

class PluginReply(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lines: _Optional[_Iterable[str]] = ...) -> None: ...

class Suspension(_message.Message):
    __slots__ = ("officer", "key", "reason", "at")
    OFFICER_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    officer: str
    key: str
    reason: str
    at: str
    def __init__(self, officer: _Optional[str] = ..., key: _Optional[str] = ..., reason: _Optional[str] = ..., at: _Optional[str] = ...) -> None: ...

class Officers(_message.Message):
    __slots__ = ("version", "keys", "waiting")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    version: int
    keys: _containers.RepeatedCompositeFieldContainer[OfficerKey]
    waiting: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[OfficerKey, _Mapping]]] = ..., waiting: _Optional[_Iterable[str]] = ...) -> None: ...

class OfficerKey(_message.Message):
    __slots__ = ("name", "key", "listed", "reason", "note", "at", "signed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    name: str
    key: str
    listed: bool
    reason: str
    note: str
    at: str
    signed: _containers.RepeatedCompositeFieldContainer[Signed]
    def __init__(self, name: _Optional[str] = ..., key: _Optional[str] = ..., listed: _Optional[bool] = ..., reason: _Optional[str] = ..., note: _Optional[str] = ..., at: _Optional[str] = ..., signed: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ...) -> None: ...

class Signed(_message.Message):
    __slots__ = ("entry", "at", "kind", "domain", "plan", "effect")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    entry: int
    at: str
    kind: str
    domain: str
    plan: str
    effect: str
    def __init__(self, entry: _Optional[int] = ..., at: _Optional[str] = ..., kind: _Optional[str] = ..., domain: _Optional[str] = ..., plan: _Optional[str] = ..., effect: _Optional[str] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("domain", "spent", "allowance", "order")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    ALLOWANCE_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    domain: str
    spent: int
    allowance: int
    order: int
    def __init__(self, domain: _Optional[str] = ..., spent: _Optional[int] = ..., allowance: _Optional[int] = ..., order: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("domain", "version", "blocks", "used")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    domain: str
    version: int
    blocks: int
    used: int
    def __init__(self, domain: _Optional[str] = ..., version: _Optional[int] = ..., blocks: _Optional[int] = ..., used: _Optional[int] = ...) -> None: ...

class Studies(_message.Message):
    __slots__ = ("studies",)
    STUDIES_FIELD_NUMBER: _ClassVar[int]
    studies: _containers.RepeatedCompositeFieldContainer[Study]
    def __init__(self, studies: _Optional[_Iterable[_Union[Study, _Mapping]]] = ...) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("facts",)
    FACTS_FIELD_NUMBER: _ClassVar[int]
    facts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, facts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RefuseRequest(_message.Message):
    __slots__ = ("digest", "reason")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    digest: str
    reason: str
    def __init__(self, digest: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...
