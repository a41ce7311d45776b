"""The families as ONNX graphs, built operator by operator."""
