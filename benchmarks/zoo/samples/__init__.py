"""The zoo's data sets, as a user has them."""
