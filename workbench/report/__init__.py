"""What a run was, as one HTML page."""
