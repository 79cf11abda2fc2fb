-- The coordinator's database, version 1. Times are UTC as YYYY-MM-DDTHH:MM:SS.ffffffZ.

-- The last code of a site. secret_hash makes a proof but not the code; used_at stays, so that a lost answer is given again.
CREATE TABLE invitations (
    site TEXT NOT NULL,
    secret_hash BLOB PRIMARY KEY,
    expires TEXT NOT NULL,
    used_at TEXT
) STRICT;

-- node_id: Flower's number of the site's node, NULL until the SuperLink knows the node or when it knows it no more.
CREATE TABLE sites (
    site TEXT PRIMARY KEY,
    identity_key BLOB NOT NULL UNIQUE,
    node_key TEXT NOT NULL UNIQUE,
    node_id INTEGER,
    joined_at TEXT NOT NULL,
    revoked_at TEXT
) STRICT;

-- Node keys that were revoked: Flower does not take one twice, and neither do we.
CREATE TABLE retired_node_keys (
    node_key TEXT PRIMARY KEY,
    site TEXT NOT NULL
) STRICT;

CREATE TABLE rosters (
    epoch INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    content BLOB NOT NULL,
    in_force INTEGER NOT NULL CHECK (in_force IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX one_roster_in_force ON rosters (in_force) WHERE in_force = 1;

-- A coordinator leads nobody back: an epoch that was carried stays as it was.
CREATE TRIGGER rosters_keep BEFORE UPDATE OF epoch, digest, content ON rosters
BEGIN SELECT RAISE(ABORT, 'a roster is never changed'); END;
CREATE TRIGGER rosters_stay BEFORE DELETE ON rosters
BEGIN SELECT RAISE(ABORT, 'a roster is never removed'); END;

CREATE TABLE studies (
    digest TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    plan BLOB NOT NULL,
    state TEXT NOT NULL,
    wanted TEXT NOT NULL,
    created_at TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT;

CREATE TABLE rounds (
    digest TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at TEXT NOT NULL,
    record TEXT NOT NULL,
    receipt BLOB,
    PRIMARY KEY (digest, round_number, attempt)
) STRICT;
