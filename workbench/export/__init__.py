"""From a torch module to a task bundle of plain ONNX graphs. Needs the extra `workbench`."""
