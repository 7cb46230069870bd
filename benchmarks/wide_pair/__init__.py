"""`models/mnist_gan` at the published widths: what its steps cost, what passes, and how long a fleet takes."""
