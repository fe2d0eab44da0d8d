"""Run and train the graphs that nnspec compiles; knows ONNX, NumPy and onnxruntime, not the compiler."""

from nnspec_runtime.data import Dataset, load_data
from nnspec_runtime.errors import RunError
from nnspec_runtime.evaluate import evaluate
from nnspec_runtime.predict import predict
from nnspec_runtime.program import Program
from nnspec_runtime.session import Device
from nnspec_runtime.stepper import TrainingSession
from nnspec_runtime.trainer import Result, Trainer
from nnspec_runtime.weights import load_weights, save_weights

__all__ = [
    "Dataset",
    "Device",
    "Program",
    "Result",
    "RunError",
    "Trainer",
    "TrainingSession",
    "evaluate",
    "load_data",
    "load_weights",
    "predict",
    "save_weights",
]
