-- Teams of organisations, log-in of CI jobs by OIDC, tags that expire, required signatures.

CREATE TABLE team (
    id $ID,
    namespace_id BIGINT NOT NULL REFERENCES namespace (id) ON DELETE CASCADE,
    name TEXT $ASCII NOT NULL,
    created BIGINT NOT NULL,
    UNIQUE (namespace_id, name)
);

CREATE TABLE team_member (
    team_id BIGINT NOT NULL REFERENCES team (id) ON DELETE CASCADE,
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    PRIMARY KEY (team_id, account_id)
);
CREATE INDEX team_member_account ON team_member (account_id);

CREATE TABLE team_grant (
    id $ID,
    team_id BIGINT NOT NULL REFERENCES team (id) ON DELETE CASCADE,
    repository_id BIGINT REFERENCES repository (id) ON DELETE CASCADE,  -- NULL: all repositories of the organisation
    level TEXT NOT NULL               -- read, write, admin
);
CREATE INDEX team_grant_team ON team_grant (team_id);
CREATE INDEX team_grant_repository ON team_grant (repository_id);

CREATE TABLE trust (                  -- tokens of an issuer that are valid for a robot
    id $ID,
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    issuer TEXT NOT NULL,
    audience TEXT NOT NULL,
    subject TEXT NOT NULL,            -- a pattern
    created BIGINT NOT NULL
);
CREATE INDEX trust_account ON trust (account_id);

ALTER TABLE tag ADD COLUMN expires BIGINT;
CREATE INDEX tag_expires ON tag (expires) WHERE expires IS NOT NULL;

ALTER TABLE tag_rule ADD COLUMN public_key TEXT;  -- kind signed: the key (PEM) of the required signature
