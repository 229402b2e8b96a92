-- Rules for tags: immutable tags, and retention of tags.

CREATE TABLE tag_rule (
    id $ID,
    kind TEXT NOT NULL,               -- immutable, retain
    repository TEXT NOT NULL,         -- a pattern: team/app, team/*, *
    tags TEXT NOT NULL,               -- a pattern: v*, *
    keep_last BIGINT,                 -- retain: keep this many of the newest tags
    keep_seconds BIGINT,              -- retain: keep tags pushed or pulled within this time
    created BIGINT NOT NULL
);
CREATE INDEX tag_rule_kind ON tag_rule (kind);
