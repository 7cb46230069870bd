"""What a device decides about its neighbours, where it learns without a coordinator. Pure, and without numpy."""
