"""A task bundle on this machine: its folder, its samples, and its graphs run on raw inputs."""
