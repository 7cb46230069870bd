"""What a task promises about the privacy of its devices' samples, and what that costs."""
