"""Pictures, classes and membership from what a helper sees: what the attacks on split learning are made of."""
