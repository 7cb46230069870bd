"""What the machine says of itself and what happens on it: guards' readings, meters, files and times that wake."""
