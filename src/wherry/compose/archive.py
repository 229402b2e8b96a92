"""Secrets and configs as a tar archive that is extracted in a container before it starts."""

from __future__ import annotations

import io
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.compose.mounts import File


def archive(files: Sequence[File]) -> bytes:
    """Each file with its absolute path, owner and mode; the daemon creates the directories."""
    out = io.BytesIO()
    with tarfile.TarFile(fileobj=out, mode="w") as tar:
        for file in files:
            member = tarfile.TarInfo(file.target.lstrip("/"))
            member.size, member.mode = len(file.content), file.mode
            member.uid, member.gid = file.uid, file.gid
            tar.addfile(member, io.BytesIO(file.content))
    return out.getvalue()
