"""The labels of a project's containers, networks, volumes and images, the same as those of
Docker's plugin."""

from __future__ import annotations

PREFIX = "com.docker.compose."
PROJECT = PREFIX + "project"
SERVICE = PREFIX + "service"
NUMBER = PREFIX + "container-number"
ONEOFF = PREFIX + "oneoff"
SLUG = PREFIX + "slug"
CONFIG_HASH = PREFIX + "config-hash"
IMAGE = PREFIX + "image"
VERSION = PREFIX + "version"
DEPENDENCIES = PREFIX + "depends_on"
WORKING_DIR = PREFIX + "project.working_dir"
CONFIG_FILES = PREFIX + "project.config_files"
ENVIRONMENT_FILE = PREFIX + "project.environment_file"
REPLACES = PREFIX + "replace"
NETWORK = PREFIX + "network"
VOLUME = PREFIX + "volume"

SPOKEN = "2.40.3"
"""The version of Docker's plugin that these labels correspond to. It is written on containers, and each
program reads the other's."""


def of_image(project: str, service: str) -> dict[str, str]:
    """The labels of an image that was built for a service."""
    return {PROJECT: project, SERVICE: service, VERSION: SPOKEN}
