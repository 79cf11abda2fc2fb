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

-- The signed rosters that this site has followed, one an epoch; the last is in force.
CREATE TABLE rosters (
    site TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    digest TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (site, epoch)
) WITHOUT ROWID
;

-- What the coordinator or an officer signed and could not have signed honestly.
CREATE TABLE evidence (
    site TEXT NOT NULL,
    digest TEXT NOT NULL,
    kind TEXT NOT NULL,
    content BLOB NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (site, digest)
) WITHOUT ROWID
;

CREATE TRIGGER evidence_is_never_removed BEFORE DELETE ON evidence
BEGIN SELECT RAISE(ABORT, 'evidence is kept'); END
;

CREATE TRIGGER rosters_are_never_changed BEFORE UPDATE ON rosters
BEGIN SELECT RAISE(ABORT, 'the chain of rosters is append-only'); END
;

CREATE TRIGGER rosters_are_never_removed BEFORE DELETE ON rosters
BEGIN SELECT RAISE(ABORT, 'the chain of rosters is append-only'); END
;

-- The latest checkpoint of another site's ledger that this site has signed.
CREATE TABLE witnessed (
    origin TEXT NOT NULL PRIMARY KEY,
    note BLOB NOT NULL
) WITHOUT ROWID
;

-- Which domain a patient belongs to, and for training or for testing, by keyed hash of the id. `after` is the number of
-- the last entry before: a round that was reserved later may have drawn the patient.
CREATE TABLE members (
    patient BLOB NOT NULL,
    domain TEXT NOT NULL,
    part TEXT NOT NULL,
    since TEXT NOT NULL,
    after INTEGER NOT NULL,
    PRIMARY KEY (patient, domain)
) WITHOUT ROWID
;

-- An id that turned out to be another patient's: hash of the id, and of the id under which the patient goes.
CREATE TABLE merged_ids (
    id BLOB NOT NULL PRIMARY KEY,
    patient BLOB NOT NULL,
    since TEXT NOT NULL,
    after INTEGER NOT NULL
) WITHOUT ROWID
;

-- When an id was opted out, by keyed hash, and when that ended; no end: it holds.
CREATE TABLE opt_outs (
    id BLOB NOT NULL,
    since TEXT NOT NULL,
    after INTEGER NOT NULL,
    until TEXT,
    until_after INTEGER,
    PRIMARY KEY (id, after)
) WITHOUT ROWID
;
