-- Other registries from which missing content is fetched, and the copies of it.

CREATE TABLE proxy (
    id $ID,
    namespace TEXT $ASCII NOT NULL UNIQUE,  -- empty: a mirror, for every name that no repository of this hub has
    url TEXT NOT NULL,
    username TEXT NOT NULL DEFAULT '',
    password TEXT NOT NULL DEFAULT '',
    realm TEXT NOT NULL DEFAULT '',         -- the token service that may receive the password
    public BOOLEAN NOT NULL,
    ttl BIGINT NOT NULL,                    -- seconds for which a tag is valid
    created BIGINT NOT NULL
);

ALTER TABLE repository ADD COLUMN proxy_id BIGINT;  -- set: its content is a copy, and clients cannot push to it

CREATE TABLE proxy_manifest (
    repository_id BIGINT NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    body $BYTES NOT NULL,
    used BIGINT NOT NULL,                   -- the last pull, accurate to an hour
    PRIMARY KEY (repository_id, digest)
);
CREATE INDEX proxy_manifest_used ON proxy_manifest (used);

CREATE TABLE proxy_tag (
    repository_id BIGINT NOT NULL,
    name TEXT $ASCII NOT NULL,
    digest TEXT NOT NULL,
    checked BIGINT NOT NULL,                -- when the other registry last confirmed it
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, digest) REFERENCES proxy_manifest (repository_id, digest) ON DELETE CASCADE
);
CREATE INDEX proxy_tag_manifest ON proxy_tag (repository_id, digest);
