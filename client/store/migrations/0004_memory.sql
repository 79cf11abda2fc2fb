-- What a strategy lets this site remember between rounds, sealed: the memory after the round that began at a model.
CREATE TABLE memories (
    site TEXT NOT NULL,
    plan TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    model_hash TEXT NOT NULL,
    nonce BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (site, plan, round_number, attempt, model_hash)
) WITHOUT ROWID
;
