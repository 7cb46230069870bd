"""What a bundle is and needs, and what a captured message says."""
