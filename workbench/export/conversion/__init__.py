"""From a torch function to one graph of plain ONNX operators, and what an error on that way means."""
