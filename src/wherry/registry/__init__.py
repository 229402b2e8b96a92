"""The distribution client: it fetches from registries and pushes to them (distribution-spec 1.1)."""
