"""Compile declarative neural-network specifications: from a page of text to a trained ONNX model.

```python
import nnspec

compiled = nnspec.compile_network("digits.nn")
print(nnspec.summarize(compiled.network).counts.parameters)
nnspec.save_network(compiled.network, nnspec.initial_weights(compiled.network, seed=0), "digits.onnx")
```

Everything else is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnspec.autodiff import gradient
    from nnspec.compile import check_file, compile_network, compile_recipe, initial_weights
    from nnspec.diagnostics import NnspecError, SpecError
    from nnspec.export import save_network, save_program
    from nnspec.ir import Network
    from nnspec.recipe import Recipe
    from nnspec.summary import summarize

__all__ = [
    "Network",
    "NnspecError",
    "Recipe",
    "SpecError",
    "check_file",
    "compile_network",
    "compile_recipe",
    "gradient",
    "initial_weights",
    "save_network",
    "save_program",
    "summarize",
]

_HOMES = {
    "Network": "nnspec.ir",
    "NnspecError": "nnspec.diagnostics",
    "Recipe": "nnspec.recipe",
    "SpecError": "nnspec.diagnostics",
    "check_file": "nnspec.compile",
    "compile_network": "nnspec.compile",
    "compile_recipe": "nnspec.compile",
    "gradient": "nnspec.autodiff",
    "initial_weights": "nnspec.compile",
    "save_network": "nnspec.export",
    "save_program": "nnspec.export",
    "summarize": "nnspec.summary",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("nnspec")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'nnspec' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])
