"""A model as a chain of blocks that end at named points: which parameters each has, its graphs, and what it costs."""
