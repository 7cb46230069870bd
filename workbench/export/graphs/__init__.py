"""The graphs of a bundle: training steps, evaluation, prediction."""
