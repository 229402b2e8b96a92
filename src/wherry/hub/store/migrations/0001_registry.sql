-- Accounts and what they own, content, uploads. Times are seconds since the epoch.

CREATE TABLE account (
    id $ID,
    name TEXT $ASCII NOT NULL UNIQUE,
    folded TEXT NOT NULL UNIQUE,
    email TEXT UNIQUE,
    password TEXT NOT NULL,           -- in Django's format: argon2$argon2id$...; empty: no log-in by password
    admin BOOLEAN NOT NULL DEFAULT FALSE,
    active BOOLEAN NOT NULL DEFAULT TRUE,
    created BIGINT NOT NULL
);

CREATE TABLE token (
    id $ID,
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,               -- personal, refresh
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,        -- sha256 of the secret
    prefix TEXT NOT NULL,             -- its first characters, shown in lists
    scope TEXT NOT NULL,
    patterns TEXT NOT NULL DEFAULT '',  -- repositories, separated by blanks
    created BIGINT NOT NULL,
    expires BIGINT,
    last_used BIGINT,
    address TEXT NOT NULL DEFAULT ''
);
CREATE INDEX token_account ON token (account_id);

CREATE TABLE signing_key (
    kid TEXT PRIMARY KEY,
    private TEXT NOT NULL,            -- PEM
    created DOUBLE PRECISION NOT NULL
);

CREATE TABLE revocation (
    id $ID,
    subject TEXT NOT NULL,            -- account:7, token:12, repository:team/app
    not_before DOUBLE PRECISION NOT NULL
);

CREATE TABLE namespace (
    id $ID,
    name TEXT $ASCII NOT NULL UNIQUE,
    owner_id BIGINT REFERENCES account (id),
    quota_bytes BIGINT,
    used_bytes BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL
);
CREATE INDEX namespace_owner ON namespace (owner_id);

CREATE TABLE repository (
    id $ID,
    namespace_id BIGINT NOT NULL REFERENCES namespace (id),
    name TEXT $ASCII NOT NULL,        -- the full name, with the namespace
    public BOOLEAN NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    created BIGINT NOT NULL,
    pushed BIGINT,
    pulls BIGINT NOT NULL DEFAULT 0,
    deleted BIGINT                    -- set: the name is free, the content still exists
);
CREATE UNIQUE INDEX repository_name ON repository (name) WHERE deleted IS NULL;
CREATE INDEX repository_deleted ON repository (deleted) WHERE deleted IS NOT NULL;
CREATE INDEX repository_namespace ON repository (namespace_id);

CREATE TABLE access_grant (
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    repository_id BIGINT NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
    level TEXT NOT NULL,              -- read, write, admin
    PRIMARY KEY (account_id, repository_id)
);
CREATE INDEX access_grant_repository ON access_grant (repository_id);

CREATE TABLE blob (
    id $ID,
    digest TEXT NOT NULL UNIQUE,
    size BIGINT NOT NULL,
    storage_key TEXT NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    verified BIGINT,
    lost BOOLEAN NOT NULL DEFAULT FALSE,  -- the object is missing; the next push restores it
    gc_after BIGINT                   -- when the collector checks whether it is in use; NULL: in use
);
CREATE INDEX blob_due ON blob (gc_after) WHERE gc_after IS NOT NULL;

CREATE TABLE repository_blob (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    blob_id BIGINT NOT NULL REFERENCES blob (id),
    hidden BOOLEAN NOT NULL DEFAULT FALSE,
    keep_until BIGINT,                -- when the collector checks whether a manifest uses it; NULL: in use
    PRIMARY KEY (repository_id, blob_id)
);
CREATE INDEX repository_blob_blob ON repository_blob (blob_id);
CREATE INDEX repository_blob_due ON repository_blob (keep_until) WHERE keep_until IS NOT NULL;

CREATE TABLE manifest (
    id $ID,
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT NOT NULL,
    size BIGINT NOT NULL,
    total_size BIGINT NOT NULL,
    body $BYTES NOT NULL,
    annotations TEXT NOT NULL DEFAULT '',  -- JSON, for lists of referrers
    subject TEXT,
    created BIGINT NOT NULL,
    pushed_by BIGINT,
    deleted BIGINT,
    keep_until BIGINT,                -- when the collector checks whether it is in use
    UNIQUE (repository_id, digest)
);
CREATE INDEX manifest_subject ON manifest (repository_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX manifest_due ON manifest (keep_until) WHERE keep_until IS NOT NULL;

CREATE TABLE manifest_blob (
    manifest_id BIGINT NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    repository_id BIGINT NOT NULL,
    blob_id BIGINT NOT NULL,
    role TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (manifest_id, blob_id),
    FOREIGN KEY (repository_id, blob_id) REFERENCES repository_blob (repository_id, blob_id)
);
CREATE INDEX manifest_blob_link ON manifest_blob (repository_id, blob_id);

CREATE TABLE manifest_child (
    parent_id BIGINT NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    child_id BIGINT NOT NULL REFERENCES manifest (id),
    os TEXT NOT NULL DEFAULT '',
    architecture TEXT NOT NULL DEFAULT '',
    variant TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (parent_id, child_id)
);
CREATE INDEX manifest_child_child ON manifest_child (child_id);

CREATE TABLE manifest_missing (       -- members of an index that do not exist (yet)
    parent_id BIGINT NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    repository_id BIGINT NOT NULL,
    digest TEXT NOT NULL,
    os TEXT NOT NULL DEFAULT '',
    architecture TEXT NOT NULL DEFAULT '',
    variant TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (parent_id, digest)
);
CREATE INDEX manifest_missing_digest ON manifest_missing (repository_id, digest);

CREATE TABLE tag (
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    name TEXT $ASCII NOT NULL,
    manifest_id BIGINT NOT NULL REFERENCES manifest (id),
    updated BIGINT NOT NULL,
    updated_by BIGINT,
    last_pulled BIGINT,
    PRIMARY KEY (repository_id, name)
);
CREATE INDEX tag_manifest ON tag (manifest_id);

CREATE TABLE tag_history (
    id $ID,
    repository_id BIGINT NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
    name TEXT $ASCII NOT NULL,
    digest TEXT,                      -- NULL: the tag was deleted
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    cause TEXT NOT NULL               -- push, delete, revert, retention, undelete
);
CREATE INDEX tag_history_tag ON tag_history (repository_id, name, id);

CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    repository_id BIGINT NOT NULL REFERENCES repository (id),
    account_id BIGINT,
    algorithm TEXT NOT NULL,
    received BIGINT NOT NULL DEFAULT 0,
    prefix_digest TEXT NOT NULL DEFAULT '',
    storage_key TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT '',   -- data of the object store, JSON
    lease_owner TEXT NOT NULL DEFAULT '',
    lease_until BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX upload_expires ON upload (expires);
CREATE INDEX upload_repository ON upload (repository_id);

CREATE TABLE trash (
    storage_key TEXT PRIMARY KEY,
    delete_after BIGINT NOT NULL
);
CREATE INDEX trash_due ON trash (delete_after);

CREATE TABLE hold (                  -- while a row is valid, no object is deleted (for backups)
    name TEXT PRIMARY KEY,
    until BIGINT NOT NULL
);

CREATE TABLE event (
    id $ID,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,              -- the name of the account; empty for anonymous clients
    address TEXT NOT NULL,
    action TEXT NOT NULL,             -- manifest.push, tag.delete, token.create, ...
    namespace TEXT NOT NULL DEFAULT '',
    repository TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT ''   -- JSON
);
CREATE INDEX event_repository ON event (repository, id);
