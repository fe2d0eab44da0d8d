"""Run and train the graphs that nnspec compiles; knows ONNX, NumPy and onnxruntime, not the compiler."""
