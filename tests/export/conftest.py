"""One thread of torch for each test process."""

import torch

# Models of a few weights gain nothing from a second thread: waiting for one another takes most of their time.
torch.set_num_threads(1)
