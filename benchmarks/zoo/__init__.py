"""Many tasks, one default: what a recipe learns that has nothing but its model, its loss and its samples."""
