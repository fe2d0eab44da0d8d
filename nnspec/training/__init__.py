"""Training as graphs: `build` makes the graphs of a recipe and their manifest, `save` writes them."""

from nnspec.training.program import Program, save
from nnspec.training.step import build, gradients

__all__ = ["Program", "build", "gradients", "save"]
