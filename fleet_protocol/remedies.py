"""What to change about faults that device, coordinator and workbench all meet, in the same words."""

from typing import Final

STEADIER_TRAINING: Final = "scale the inputs to about -1 to 1, lower [training] learning_rate, or set its gradient_clip"
"""For training that diverges, and for updates that are too large for any bound."""
