"""Files of a project that lie elsewhere: in a git repository, or in a registry as an artifact.

    https://host/name.git[#REF[:PATH]]   also git@host:name.git, ssh://, git://, github.com/owner/name
    oci://HOST/NAME[:TAG|@DIGEST]        what ``compose publish`` has sent

They are kept below ``$XDG_CACHE_HOME/wherry/compose``, each under the commit or the digest it was found at,
so a version is fetched once; what a branch or a tag points to is asked each time.
"""

from __future__ import annotations

from wherry.compose.places import ComposeError

OCI = "oci://"
_GIT = ("git@", "ssh://", "git://", "github.com/")


def is_remote(path: str) -> bool:
    """Whether a path in ``-f`` or ``include`` names something elsewhere."""
    return path.startswith(OCI) or is_git(path)


def is_git(path: str) -> bool:
    if path.startswith(_GIT):
        return True
    return path.startswith(("https://", "http://")) and path.partition("#")[0].endswith(".git")


def refuse(name: str) -> str:
    """In the place of ``RemoteFiles.fetch``, where nothing is fetched."""
    raise ComposeError(f"{name} is not on this machine")
