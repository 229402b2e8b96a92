"""The distribution client: what fetches from registries and sends to them (distribution-spec 1.1)."""
