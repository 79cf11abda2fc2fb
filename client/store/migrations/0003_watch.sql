-- What this site has heard of ledgers, for protocol/watch.py: statements, open heads, alarms and what answered them.
CREATE TABLE watched (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    content BLOB NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID
;

CREATE TRIGGER alarms_are_never_removed BEFORE DELETE ON watched WHEN OLD.kind = 'alarm'
BEGIN SELECT RAISE(ABORT, 'an alarm is kept'); END
;

-- When this site has signed which head of another site's ledger last.
CREATE TABLE witnessed_at (
    origin TEXT NOT NULL PRIMARY KEY,
    at TEXT NOT NULL
) WITHOUT ROWID
;
