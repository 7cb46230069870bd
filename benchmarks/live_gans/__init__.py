"""A clustered pair in a fleet of the shipped programs, undisturbed and disturbed."""
