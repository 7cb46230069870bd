"""The operator's workstation: export models to task bundles, run fleets on one machine, inspect results."""
