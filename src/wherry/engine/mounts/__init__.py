"""The mounts of containers: parsing, holding volumes and images, preparing sources, allowed targets."""
