"""What images of every store have in common."""

from __future__ import annotations


class StoredImage:
    """An image by its id, a digest, with the names that it has."""

    def __init__(self, identifier: str, names: list[str]) -> None:
        self.id, self.names = identifier, names

    @property
    def extra_name(self) -> str:
        """By which it is found, if it has no name."""
        return f"docker-migrated:{self.id.partition(':')[2][:12]}"
