"""A task bundle on this machine: its folder, samples for it, and its graphs run on raw inputs."""
