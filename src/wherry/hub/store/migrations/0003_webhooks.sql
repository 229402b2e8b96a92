-- Webhooks and their deliveries. Deliveries are written in the transaction of their event.

CREATE TABLE webhook (
    id $ID,
    repository TEXT NOT NULL,         -- a pattern
    events TEXT NOT NULL,             -- patterns, separated by blanks
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE delivery (
    id $ID,
    webhook_id BIGINT NOT NULL REFERENCES webhook (id) ON DELETE CASCADE,
    event_id BIGINT NOT NULL REFERENCES event (id),
    state TEXT NOT NULL,              -- due, done, dead
    tries BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    told BIGINT,                      -- the time of the last attempt
    status BIGINT,                    -- of the response; 0: no response
    answer TEXT NOT NULL DEFAULT ''   -- the beginning of the response, or the reason why there is none
);
CREATE INDEX delivery_due ON delivery (next_at) WHERE state = 'due';
CREATE INDEX delivery_webhook ON delivery (webhook_id, id);
