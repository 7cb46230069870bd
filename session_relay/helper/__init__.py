"""A stronger machine that runs the middle of a model for devices which are too weak for it."""
