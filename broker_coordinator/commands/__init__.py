"""What an operator asks of a coordinator on the command line."""
