"""A device's part in a distribution over weights: its factor, and how a round finds a better one.

Partitioned variational inference (Bui et al. 2018, algorithm 1; Ashman et al. 2022): docs/uncertainty.md.
"""
