-- Plans that were proposed to this site. Whether one is approved is in the ledger; here is what it says.
CREATE TABLE studies (
    digest TEXT NOT NULL PRIMARY KEY,
    content BLOB NOT NULL,
    received_at TEXT NOT NULL,
    refused TEXT
) WITHOUT ROWID
;

-- Receipts of rounds that this site has checked against its own ledger and signed.
CREATE TABLE receipts (
    plan TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (plan, round_number, attempt)
) WITHOUT ROWID
;
