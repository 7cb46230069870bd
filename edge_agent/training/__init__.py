"""Training in a child process: the only part of the agent that imports numpy and onnxruntime."""
