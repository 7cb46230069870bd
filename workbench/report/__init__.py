"""What people read of a run, demonstrated or simulated: numbers, plots, one HTML page."""
