"""`--privacy MODE` of demo and simulation: the same task with another table `[privacy]` (docs/privacy.md)."""
