-- Rules that copy repositories from another registry, or to it.

CREATE TABLE replication (
    id $ID,
    direction TEXT NOT NULL,                -- pull, push
    repository TEXT NOT NULL,               -- a pattern of names at the source
    tags TEXT NOT NULL,                     -- a pattern
    url TEXT NOT NULL,
    username TEXT NOT NULL DEFAULT '',
    password TEXT NOT NULL DEFAULT '',
    realm TEXT NOT NULL DEFAULT '',         -- the token service that may receive the password
    prefix TEXT NOT NULL DEFAULT '',        -- the copy of NAME is PREFIX/NAME
    every BIGINT NOT NULL,                  -- seconds between two full runs
    deletes BOOLEAN NOT NULL,               -- push: whether deletions of tags are copied
    created BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL DEFAULT 0,  -- a worker runs it until then
    seen BIGINT NOT NULL DEFAULT 0,         -- push: the last row of tag_history that was processed
    seen_event BIGINT NOT NULL DEFAULT 0,   -- push: the last row of event that was processed
    since BIGINT NOT NULL DEFAULT 0,        -- when the last successful run began
    ended BIGINT,                           -- when the last run ended
    failures BIGINT NOT NULL DEFAULT 0,     -- failed runs since then
    outcome TEXT NOT NULL DEFAULT ''        -- what the last run did, or why it failed
);
CREATE INDEX replication_due ON replication (next_at);
