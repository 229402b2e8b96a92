-- Organisations: namespaces that belong to several accounts, and their members.

CREATE TABLE org_member (
    namespace_id BIGINT NOT NULL REFERENCES namespace (id) ON DELETE CASCADE,
    account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    role TEXT NOT NULL,               -- owner, editor, member
    PRIMARY KEY (namespace_id, account_id)
);
CREATE INDEX org_member_account ON org_member (account_id);
