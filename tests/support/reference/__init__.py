"""The references in docs/, made from the code: `python -m tests.support.reference` writes them anew."""
