"""Training that tells of no single sample more than a task's `[privacy.samples]` allows."""
