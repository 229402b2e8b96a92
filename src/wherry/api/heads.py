"""The headers that every answer has, as clients expect them."""

from __future__ import annotations

from wherry import __version__
from wherry.api.router import API_VERSION, version_text

HEADERS = {
    "Api-Version": version_text(API_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"wherry/{__version__} (linux)",
}
