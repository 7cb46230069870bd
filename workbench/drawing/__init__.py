"""Pictures that a version of a task draws, for people to look at."""
