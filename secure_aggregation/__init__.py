"""Secure aggregation in one message of each device (docs/secure-aggregation.md): nobody sees one device's update. Pure.

`messages`, `signatures`, `manifest` and `seed_plan` are what all agree on; `field`, `rounding`, `discrete_gaussian`,
`masks`, `bit_packing`, `positions` and `boxes` are the arithmetic that they share. `device`, `helper` and `coordinator`
are the three parts, of which none imports another; `asking` is how a coordinator goes from a closed cohort to its sum.
"""
