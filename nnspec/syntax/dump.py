"""Print a syntax tree for people: `--emit tree`, and the expectations of the corpus tests."""

from __future__ import annotations

import json
from collections.abc import Iterable

from nnspec.syntax import tree

_WIDTH = 100


def dump(node: tree.Tree) -> str:
    """Return the tree as an S-expression: short nodes on one line, longer ones indented by two.

    Names stand bare, strings in quotes, `-` for an absent name. A pipe of any length is one flat `(pipe ...)`.
    """
    if isinstance(node, tree.File):
        return "".join(_render(_form(item), 0) + "\n" for item in node.items)
    return _render(_form(node), 0)


class _Form:
    """A parenthesised form, words first and then parts; without parts, the words alone."""

    def __init__(self, head: str, parts: Iterable[tree.Tree | _Form] = (), *, tall: bool = False) -> None:
        self.head = head
        self.parts = [part if isinstance(part, _Form) else _form(part) for part in parts]
        self.width: int = len(head) + sum(part.width + 1 for part in self.parts) + (2 if self.parts else 0)
        if tall:
            self.width += _WIDTH


def _render(form: _Form, indent: int) -> str:
    if not form.parts:
        return form.head
    if form.width + indent <= _WIDTH:
        return f"({' '.join([form.head, *(_render(part, 0) for part in form.parts)])})"
    lines = [" " * (indent + 2) + _render(part, indent + 2) for part in form.parts]
    return f"({form.head}\n" + "\n".join(lines) + ")"


def _names(names: Iterable[tree.Ident]) -> str:
    return "(" + " ".join(name.name for name in names) + ")"


def _optional(*nodes: tree.Tree | None) -> list[tree.Tree]:
    return [node for node in nodes if node is not None]


def _form(node: tree.Tree) -> _Form:
    match node:
        case tree.Number():
            return _Form(repr(node.value))
        case tree.Size():
            return _Form("x".join(str(dim) for dim in node.dims))
        case tree.Text():
            return _Form(json.dumps(node.value))
        case tree.Bool():
            return _Form("true" if node.value else "false")
        case tree.Name() | tree.Ident():
            return _Form(node.name)
        case tree.NextState():
            return _Form(f"(next {node.name})")
        case tree.Pipe():
            return _Form("pipe", _stages(node))
        case tree.ListExpr() | tree.TupleExpr():
            head = "list" if isinstance(node, tree.ListExpr) else "tuple"
            return _Form(head, node.items) if node.items else _Form(f"({head})")
        case tree.Unary():
            return _Form(node.op, [node.operand])
        case tree.Binary():
            return _Form(node.op, [node.left, node.right])
        case tree.Attribute():
            return _Form(".", [node.value, node.name])
        case tree.Index():
            return _Form("index", [node.value, *node.indices])
        case tree.Call():
            return _Form("call", [node.callee, *node.arguments])
        case tree.Argument():
            return _form(node.value) if node.name is None else _Form("=", [node.name, node.value])
        case tree.As():
            return _Form("as", [node.value, node.name])
        case tree.Freeze():
            return _Form("freeze", [node.value])
        case tree.Recompute():
            return _Form("recompute", [node.value])
        case tree.If():
            return _Form("if", [node.condition, node.then, node.otherwise])
    return _statement(node)


def _stages(node: tree.Expr) -> list[tree.Expr]:
    """Return the first value of a pipe and its stages, without recursion over its length."""
    stages: list[tree.Expr] = []
    while isinstance(node, tree.Pipe):
        stages.append(node.stage)
        node = node.value
    return [node, *reversed(stages)]


def _statement(node: tree.Tree) -> _Form:
    match node:
        case tree.Assign():
            targets = node.targets[0].name if len(node.targets) == 1 else _names(node.targets)
            return _Form(f"assign {targets}", [node.value])
        case tree.Shared() | tree.Metric() | tree.Const() | tree.Next():
            return _Form(f"{type(node).__name__.lower()} {node.name.name}", [node.value])
        case tree.Input() | tree.Target():
            masked = [_Form("masked")] if node.masked else []
            return _Form(f"{type(node).__name__.lower()} {node.name.name}", [node.type, *masked])
        case tree.Output():
            name = f"output {node.name.name}"
            return _Form(name, [node.value]) if node.value is not None else _Form(f"({name})")
        case tree.Param() | tree.State():
            return _Form(f"{type(node).__name__.lower()} {node.name.name}", _optional(node.shape, node.init))
        case tree.Return():
            return _Form("return", node.values)
        case tree.For():
            index = f"{node.index.name} " if node.index is not None else ""
            return _Form(f"for {index}{node.name.name}", [node.iterable, _body(node.body)])
    return _item(node)


def _item(node: tree.Tree) -> _Form:
    match node:
        case tree.Parameter():
            return _Form("=", [node.name, node.default]) if node.default is not None else _form(node.name)
        case tree.Import():
            return _Form("import", [node.path])
        case tree.Network():
            return _Form(f"network {node.name.name}", [*_parameters(node.parameters), _body(node.body)])
        case tree.Block():
            head = f"block {node.name.name} {_names(node.data)}"
            return _Form(head, [*_parameters(node.parameters), _body(node.body)])
        case tree.Cell():
            head = f"cell {node.name.name} {_names(node.data)} {_names(node.given)}"
            return _Form(head, [*_parameters(node.parameters), _body(node.body)])
        case tree.Train():
            name = node.name.name if node.name is not None else "-"
            return _Form(f"train {node.network.name} {name}", [_body(node.body)])
    raise TypeError(f"not a node of the syntax tree: {type(node).__name__}")


def _parameters(parameters: tuple[tree.Parameter, ...]) -> list[_Form]:
    return [_Form("parameters", parameters)] if parameters else []


def _body(body: tuple[tree.Statement, ...]) -> _Form:
    return _Form("body", body, tall=True) if body else _Form("(body)")
