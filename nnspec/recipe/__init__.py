"""How a network is trained, as validated, frozen data: optimizers, schedules, clips, regularisers, stops, `Recipe`.

Each setting is one class whose fields are its arguments and which builds its own part of the step graph. Importing this
package imports neither onnx nor onnxruntime.
"""

from nnspec.recipe import clips, optimizers, regularizers, schedules, stops
from nnspec.recipe.base import Clip, Optimizer, Regularizer, Schedule, Setting, Stop, Time, registry
from nnspec.recipe.recipe import Recipe

__all__ = [
    "Clip",
    "Optimizer",
    "Recipe",
    "Regularizer",
    "Schedule",
    "Setting",
    "Stop",
    "Time",
    "clips",
    "optimizers",
    "registry",
    "regularizers",
    "schedules",
    "stops",
]
