"""Reading a recipe: `task.toml`, `model.py`, and whether both agree."""
