"""The nouns of images live in ``wherry.model.images``, where the wire can see them too."""

from wherry.model.images import Deleted as Deleted
from wherry.model.images import DiskUsage as DiskUsage
from wherry.model.images import HistoryEntry as HistoryEntry
from wherry.model.images import Image as Image
from wherry.model.images import ImageSummary as ImageSummary
from wherry.model.images import ImageUser as ImageUser
from wherry.model.images import ManifestSummary as ManifestSummary
from wherry.model.images import Untagged as Untagged
from wherry.model.images import Users as Users
from wherry.model.images import parse_time as parse_time
from wherry.model.images import repo_digests as repo_digests
