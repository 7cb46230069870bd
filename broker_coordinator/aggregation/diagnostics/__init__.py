"""What the updates of a fleet show of it: how unlike they are, who sends them, and whether a task's plan suits them."""
