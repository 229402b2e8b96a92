"""The use cases of volumes and secrets: files, versions, registries."""
