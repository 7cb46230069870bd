"""What runs in place of a module's own layers and functions: the same results, from operators that become a graph."""
