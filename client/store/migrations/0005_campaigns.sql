-- What a campaign of indicators counted in each tick that was answered, sealed: with it the ticks before can be made again.
CREATE TABLE campaign_steps (
    site TEXT NOT NULL,
    plan TEXT NOT NULL,
    tick INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (site, plan, tick)
) WITHOUT ROWID
;
