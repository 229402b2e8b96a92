-- What the pages for people need: descriptions, stars, follows, renames, invitations, pulls by day.

ALTER TABLE account ADD COLUMN second_factor BOOLEAN NOT NULL DEFAULT FALSE;  -- set: the password alone is not enough
ALTER TABLE account ADD COLUMN deleted BIGINT;  -- set: the person left; the name stays taken

ALTER TABLE namespace ADD COLUMN title TEXT NOT NULL DEFAULT '';
ALTER TABLE namespace ADD COLUMN about TEXT NOT NULL DEFAULT '';
ALTER TABLE namespace ADD COLUMN link TEXT NOT NULL DEFAULT '';

ALTER TABLE repository ADD COLUMN readme TEXT NOT NULL DEFAULT '';      -- Markdown
ALTER TABLE repository ADD COLUMN categories TEXT NOT NULL DEFAULT '';  -- words, with a blank before and after each
ALTER TABLE repository ADD COLUMN platforms TEXT NOT NULL DEFAULT '';   -- linux/amd64, likewise
ALTER TABLE repository ADD COLUMN signed BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE repository ADD COLUMN archived BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE repository ADD COLUMN stars BIGINT NOT NULL DEFAULT 0;
ALTER TABLE repository ADD COLUMN recent_pulls BIGINT NOT NULL DEFAULT 0;  -- of seven days
-- What a search looks at is in the index itself, so that a word that nothing has costs no read of all rows.
CREATE INDEX repository_pulls ON repository (pulls, name, public, namespace_id, description)
    WHERE deleted IS NULL;
CREATE INDEX repository_stars ON repository (stars, name) WHERE deleted IS NULL;
CREATE INDEX repository_pushed ON repository (pushed, name) WHERE deleted IS NULL;
CREATE INDEX repository_created ON repository (created, name) WHERE deleted IS NULL;
CREATE INDEX repository_recent ON repository (recent_pulls, name) WHERE recent_pulls > 0;

CREATE TABLE repository_alias (       -- earlier names of repositories
    name TEXT $ASCII PRIMARY KEY,
    repository_id BIGINT NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
    created BIGINT NOT NULL
);
CREATE INDEX repository_alias_repository ON repository_alias (repository_id);

CREATE TABLE star (
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    repository_id BIGINT NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    PRIMARY KEY (account_id, repository_id)
);
CREATE INDEX star_repository ON star (repository_id);

CREATE TABLE follow (
    id $ID,
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    repository_id BIGINT REFERENCES repository (id) ON DELETE CASCADE,
    namespace_id BIGINT REFERENCES namespace (id) ON DELETE CASCADE,  -- one of the two is set
    created BIGINT NOT NULL
);
CREATE UNIQUE INDEX follow_repository ON follow (account_id, repository_id) WHERE repository_id IS NOT NULL;
CREATE UNIQUE INDEX follow_namespace ON follow (account_id, namespace_id) WHERE namespace_id IS NOT NULL;
CREATE INDEX follow_of_repository ON follow (repository_id);
CREATE INDEX follow_of_namespace ON follow (namespace_id);

CREATE TABLE pull_daily (
    repository_id BIGINT NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
    day BIGINT NOT NULL,              -- days since the epoch, in UTC
    tag TEXT NOT NULL,                -- empty: by digest
    platform TEXT NOT NULL,           -- linux/amd64; empty: an index, or not known
    client TEXT NOT NULL,             -- docker, wherry, podman, ...
    pulls BIGINT NOT NULL,
    PRIMARY KEY (repository_id, day, tag, platform, client)
);
CREATE INDEX pull_daily_day ON pull_daily (day);

CREATE TABLE image_fact (             -- from the configuration of an image
    manifest_id BIGINT PRIMARY KEY REFERENCES manifest (id) ON DELETE CASCADE,
    os TEXT NOT NULL DEFAULT '',
    architecture TEXT NOT NULL DEFAULT '',
    variant TEXT NOT NULL DEFAULT ''
);

CREATE TABLE invitation (
    id $ID,
    hash TEXT NOT NULL UNIQUE,        -- sha256 of the secret in the link
    email TEXT NOT NULL DEFAULT '',
    namespace_id BIGINT REFERENCES namespace (id) ON DELETE CASCADE,  -- NULL: only to sign up
    role TEXT NOT NULL DEFAULT '',
    invited_by TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used BIGINT
);
CREATE INDEX invitation_namespace ON invitation (namespace_id);

CREATE TABLE abuse_report (
    id $ID,
    account_id BIGINT REFERENCES account (id) ON DELETE SET NULL,
    repository TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    created BIGINT NOT NULL,
    closed BIGINT,
    closed_by TEXT NOT NULL DEFAULT ''
);

CREATE TABLE site_value (             -- of the hub as a whole: a banner, the key of the sessions
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE INDEX tag_updated ON tag (repository_id, updated);
CREATE INDEX event_namespace ON event (namespace, id);
CREATE INDEX event_actor ON event (actor, id);
