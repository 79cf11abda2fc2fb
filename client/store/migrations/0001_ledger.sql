-- The ledger: one row per entry, never changed and never removed.
CREATE TABLE entries (
    site TEXT NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,
    signature BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (site, number)
) WITHOUT ROWID
;

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END
;

CREATE TRIGGER entries_are_never_removed BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END
;

-- Answers that were finished, encrypted: sent again byte for byte, at no further charge.
CREATE TABLE replies (
    site TEXT NOT NULL,
    plan TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    model_hash TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (site, plan, round_number, model_hash, attempt)
) WITHOUT ROWID
;

-- Heads that others hold and that this file does not continue: no reservation until a recovery names them.
CREATE TABLE rollbacks (
    site TEXT NOT NULL,
    size INTEGER NOT NULL,
    root TEXT NOT NULL,
    witness TEXT NOT NULL,
    PRIMARY KEY (site, size, root)
) WITHOUT ROWID
;

-- The latest checkpoint of another site's ledger that this site has signed.
CREATE TABLE witnessed (
    origin TEXT NOT NULL PRIMARY KEY,
    note BLOB NOT NULL
) WITHOUT ROWID
;

-- Which domain a patient belongs to, by keyed hash of the id. A patient has one, or several after a merge of ids.
CREATE TABLE members (
    patient BLOB NOT NULL,
    domain TEXT NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (patient, domain)
) WITHOUT ROWID
;

-- When a patient opted out, by keyed hash, and when that ended; no end: it holds.
CREATE TABLE opt_outs (
    patient BLOB NOT NULL,
    since TEXT NOT NULL,
    until TEXT,
    PRIMARY KEY (patient, since)
) WITHOUT ROWID
;
