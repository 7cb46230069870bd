"""A round's report: how it went, for people to look at. It travels beside whatever makes the task's versions."""
