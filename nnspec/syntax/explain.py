"""Say in the user's words what is wrong where a statement stops making sense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nnspec.diagnostics import Code, Diagnostic, Label, nearest
from nnspec.source import Source, Span
from nnspec.syntax.lalr import END, UnexpectedToken, expected_after
from nnspec.syntax.split import DECLARATIONS, ITEMS, ends_value, starts_value
from nnspec.syntax.tokens import Token, lexicon

_VALUE = frozenset({"NAME", "NUMBER", "SIZE", "LPAR", "LSQB"})
_OPERATORS = frozenset({"_ARROW", "POW", "MUL", "ADD", "COMPARE", "OR", "AND", "_AS", "DOT"})
_STATEMENTS = DECLARATIONS | {"for", "return"}
_KINDS = {"NAME": "a name", "NUMBER": "a number", "SIZE": "a size", "STRING": "a string", END: "the end"}
_CLOSING = {"LPAR": ")", "LSQB": "]", "LBRACE": "}"}
_TYPES = {
    "input": "`input x: [3, 32, 32]`, `input words: int[T]` or `input year: int`",
    "target": "`target label: int` or `target y: [10]`",
    "param": "`param b: [units] = zeros`",
    "state": "`state h: [units]`",
}
_ELSEWHERE = {
    "def": "a reusable part is a `block`: `block name(width) on x { ... }`",
    "class": "a network is `network Name { ... }`, a reusable part `block name(width) on x { ... }`",
    "from": 'another file is brought in by `import "blocks.nn"`',
    "while": "there is no `while`: repeat with `for NAME in LIST { ... }` or `layer * n`",
    "let": "a name is bound by `name = value`",
    "var": "a name is bound by `name = value`",
    "val": "a name is bound by `name = value`",
    "elif": "write `else if`",
    "layer": "a layer is applied by `y = x -> conv(64, 3x3)`",
}

class Finding(NamedTuple):
    """What is wrong and how to mend it; `at` is where to look, the failing token unless another is better."""

    message: str
    help: str = ""
    at: Token | None = None


class _Scene:
    """The place of an error: the piece of text that was parsed and the token at which it failed."""

    def __init__(self, source: Source, tokens: Sequence[Token], error: UnexpectedToken, start: str) -> None:
        self.tokens = tokens
        self.at = error.index
        self.token = error.token
        self.expected = expected_after(tokens[: error.index], source.text, start)
        self.start = start
        self.before = tokens[self.at - 1] if self.at > 0 else None
        self.after = tokens[self.at + 1] if self.at + 1 < len(tokens) else None
        self.head = tokens[0].text if tokens else ""
        self.opener = self._opener()
        self.wants_value = expected_value(self.expected)
        self.fresh_line = self.before is not None and "\n" in source.text[self.before.end : self.token.start]

    def _opener(self) -> Token | None:
        """Return the innermost bracket that is open before the failing token."""
        stack: list[Token] = []
        for token in self.tokens[: self.at]:
            if token.kind in ("LPAR", "LSQB", "LBRACE"):
                stack.append(token)
            elif token.kind in ("RPAR", "RSQB", "RBRACE") and stack:
                stack.pop()
        return stack[-1] if stack else None

    @property
    def found(self) -> str:
        """What stands there instead; nothing where the piece ends."""
        return f", found `{self.token.text}`" if self.token.text else ""

    @property
    def previous(self) -> str:
        return f"`{self.before.text}`" if self.before is not None and self.before.text else "it"


def expected_value(expected: frozenset[str]) -> bool:
    """Return whether an expression could start where these terminals are expected."""
    return expected >= _VALUE


def explain(source: Source, tokens: Sequence[Token], error: UnexpectedToken, start: str) -> Diagnostic:
    """Return the diagnostic for a piece of text that does not parse as the start symbol `start`."""
    scene = _Scene(source, tokens, error, start)
    finding = next(finding for rule in _RULES if (finding := rule(scene)) is not None)
    at = finding.at or error.token
    return Diagnostic(Code.SYNTAX, finding.message, (Label(Span(source, at.start, at.end)),), finding.help)


# Each rule knows one kind of mistake and returns None where it is not that one. The first that answers is right.


def _other_language(s: _Scene) -> Finding | None:
    if s.at <= 1 and s.head in _ELSEWHERE:
        return Finding(f"`{s.head}` is not part of the language", _ELSEWHERE[s.head], s.tokens[0])
    if s.token.text == "elif":
        return Finding("`elif` is not part of the language", _ELSEWHERE["elif"])
    if s.token.text == "is":
        return Finding("`is` is not part of the language", "compare with `==` and `!=`")
    if s.before is not None and s.before.text == "lambda":
        help_ = "a layer made of others is a pipe, `conv(3) -> relu`, or a `block`"
        return Finding("`lambda` is not part of the language", help_, s.before)
    if s.head == "if" and s.start == "statement" and s.at <= 1:
        return Finding("`if` is a value, not a statement", "write `x = if condition { a } else { b }`", s.tokens[0])
    return None


def _outside_an_item(s: _Scene) -> Finding | None:
    if s.start != "file" or s.at > 0 or s.token.kind == END:
        return None
    word = s.token.text
    if word in ITEMS:
        what = {"import": "a file name in quotes", "train": "the network to train"}.get(word, "a name")
        found = f"`{s.after.text}`" if s.after is not None and s.after.text else "the end of the file"
        help_ = 'write `import "blocks.nn"`' if word == "import" else ""
        return Finding(f"expected {what} after `{word}`, found {found}", help_)
    message = "expected `network`, `block`, `cell`, `train`, `const` or `import`"
    near = nearest(word, ITEMS)
    if near is not None and s.token.kind == "NAME":
        return Finding(message, f"did you mean `{near}`?")
    if word in _STATEMENTS:
        return Finding(message, f"`{word}` stands inside the braces of a network, block, cell or train block")
    if s.after is not None and s.after.kind == "EQUAL":
        return Finding(message, f"a value of the whole file is a `const`: `const {word} = ...`")
    return Finding(message)


def _inside_a_body(s: _Scene) -> Finding | None:
    if s.start == "statement" and s.at == 1 and s.head in ITEMS and s.token.kind in ("NAME", "STRING"):
        message = f"`{s.head}` stands at the top level of the file, not in a body"
        return Finding(message, "move it out of the braces", s.tokens[0])
    return None


def _no_assignment(s: _Scene) -> Finding | None:
    """A statement that starts with a name, but not with `name =`."""
    if s.start != "statement" or s.at != 1 or s.before is None or s.before.kind != "NAME" or "EQUAL" not in s.expected:
        return None
    name = s.before.text
    if name in DECLARATIONS and s.token.kind != END:
        return Finding(f"expected a name after `{name}`{s.found}", _TYPES.get(name, ""))
    if s.token.kind in ("LPAR", "_ARROW"):
        value = f"{name}(...)" if s.token.kind == "LPAR" else f"{name} -> ..."
        return Finding("a statement gives its value a name", f"write `y = {value}` or `output y = {value}`", s.before)
    if s.token.kind == "COLON" and s.after is not None and s.after.kind == "EQUAL":
        return Finding("`:=` is not part of the language", f"write `{name} = ...`")
    if s.token.kind == "COLON":
        help_ = f"write `{name} = ...`; only declarations such as `input` have a `:`"
        return Finding(f"expected `=` after `{name}`", help_)
    if s.token.kind in ("ADD", "MUL", "POW") and s.after is not None and s.after.kind == "EQUAL":
        sign = s.token.text
        help_ = f"write `new = {name} {sign} ...`: a name is bound once"
        return Finding(f"`{sign}=` is not part of the language", help_)
    if s.token.kind in ("DOT", "LSQB"):
        return Finding(f"expected `=` after `{name}`", "only a plain name can be given a value")
    near = nearest(name, _STATEMENTS) if len(name) > 3 else None
    if near is not None and s.token.kind == "NAME":
        return Finding(f"`{name}` begins no statement", f"did you mean `{near}`?", s.before)
    return Finding(f"expected `=` and a value after `{name}`{s.found}")


def _declaration(s: _Scene) -> Finding | None:
    """A declaration that misses its name, its type or its `=`."""
    if s.expected == {"NAME"} and s.before is not None and s.before.kind == "NAME":
        return Finding(f"expected a name after {s.previous}{s.found}")
    if s.expected == {"COLON"}:
        help_ = _TYPES.get(s.head)
        what = "a shape" if s.head in ("param", "state") else "a type"
        return Finding(f"expected `:` and {what} after {s.previous}{s.found}", f"write {help_}" if help_ else "")
    if s.head == "output" and s.at == 2 and s.token.kind == "COLON":
        name = s.tokens[1].text
        return Finding("an output has no type: it is inferred", f"write `output {name}` or `output {name} = ...`")
    if s.expected == {"EQUAL"} or s.expected == {"EQUAL", "COMMA"}:
        return Finding(f"expected `=` and a value after {s.previous}{s.found}")
    return None


def _header(s: _Scene) -> Finding | None:
    """The first line of an item or of `for`."""
    if s.expected == {"_ELSE"}:
        help_ = "write `if condition { a } else { b }`: both are values"
        return Finding(f"an `if` needs its `else`{s.found}", help_)
    if s.token.kind == "COLON" and "LBRACE" in s.expected:
        return Finding("expected `{`, found `:`", "what belongs together stands in braces: `{ ... }`")
    if "_ON" in s.expected and s.token.kind in ("LBRACE", END):
        help_ = f"write `{s.head} {s.tokens[1].text}(...) on x {{ ... }}`"
        return Finding(f"expected `on` and a name for the data that the {s.head} works on{s.found}", help_)
    if s.token.text in ("on", "given") and s.expected & {"_ON", "_GIVEN"}:
        found = f", found `{s.after.text}`" if s.after is not None and s.after.text else ""
        return Finding(f"expected a name for the data after `{s.token.text}`{found}")
    if "_IN" in s.expected and s.previous == "`in`":
        return Finding(f"expected a name before `in`{s.found}", "write `for NAME in LIST { ... }`")
    if "_IN" in s.expected:
        return Finding(f"expected `in` and a list after {s.previous}{s.found}", "write `for NAME in LIST { ... }`")
    if s.head == "for" and s.at == 1:
        help_ = "write `for i, d in LIST { ... }`, without parentheses"
        return Finding(f"expected a name after `for`{s.found}", help_)
    if s.head in ITEMS and s.expected <= {"NAME", "RPAR"} and s.opener is not None:
        return Finding(f"expected the name of a parameter{s.found}", "write `name` or `name = default`")
    if "LBRACE" in s.expected and not s.wants_value and s.head in ITEMS | {"for"} and s.opener is None:
        return Finding(f"expected `{{` after {s.previous}{s.found}")
    return None


def _equal_sign(s: _Scene) -> Finding | None:
    if s.token.kind != "EQUAL":
        return None
    if s.before is not None and s.before.kind == "COLON":
        return Finding("`:=` is not part of the language", "a value is bound by `=`")
    if s.before is not None and s.before.kind == "EQUAL":
        return Finding("`=` stands twice", "`=` gives a value a name, `==` compares")
    if s.opener is not None and s.opener.kind == "LBRACE":
        help_ = "write `x = if condition { a } else { b }`"
        return Finding("the braces of an `if` hold a value, not statements", help_)
    if s.opener is not None and s.opener.kind == "LPAR" and s.before is not None and s.before.kind != "NAME":
        return Finding("an argument's name is one word", "to compare, write `==`")
    return Finding("`=` cannot stand inside a value", "to compare, write `==`")


def _colon(s: _Scene) -> Finding | None:
    if s.token.kind != "COLON":
        return None
    if s.opener is not None and s.opener.kind == "LSQB":
        return Finding("an index is a single number", "a range is taken by the layer `slice`")
    if s.opener is not None and s.opener.kind == "LPAR":
        return Finding("expected `=`, found `:`", "an argument is given as `name = value`")
    if any(token.text in ("if", "else") for token in s.tokens[: s.at]):
        return Finding("expected `{`, found `:`", "write `if condition { a } else { b }`")
    return Finding("`:` cannot stand here", "a value is bound by `=`")


def _conditional(s: _Scene) -> Finding | None:
    if s.token.text == "if" and s.before is not None and ends_value(s.before):
        return Finding("the condition stands before the values", "write `if condition { a } else { b }`")
    if s.token.text == "for" and s.opener is not None:
        help_ = "write `for NAME in LIST { ... }` as a statement, or `layer * n`"
        return Finding("a list cannot be computed by `for`", help_)
    if s.token.text == "else":
        return Finding("this `else` belongs to no `if`", "write `if condition { a } else { b }`")
    return None


def _comparison(s: _Scene) -> Finding | None:
    if s.token.kind == "COMPARE" and s.before is not None and ends_value(s.before):
        return Finding("comparisons do not chain", "write `a < b and b < c`")
    return None


def _missing_value(s: _Scene) -> Finding | None:
    if not s.wants_value or s.before is None:
        return None
    if s.token.kind in ("MUL", "POW") and s.before.kind in ("LPAR", "COMMA"):
        return Finding("arguments cannot be unpacked", "give each argument by itself")
    if s.token.kind == "DOT" and s.after is not None and s.after.kind == "NUMBER":
        return Finding("expected a value, found `.`", f"write `0.{s.after.text}`")
    if s.token.kind == "COMMA" and s.before.kind == "COMMA":
        return Finding("expected a value between the commas", "leave one comma out")
    if s.before.kind in _CLOSING and s.token.text == _CLOSING[s.before.kind]:
        return Finding("expected a value between the brackets")
    if s.token.kind == "LBRACE":
        return Finding("expected a value, found `{`", "a list is written as `[a, b]`; braces belong to bodies and `if`")
    return Finding(f"expected a value after {s.previous}{s.found}")


def _missing_comma(s: _Scene) -> Finding | None:
    if s.before is None or s.opener is None or s.opener.kind == "LBRACE":
        return None
    if not ends_value(s.before) or not starts_value(s.token):
        return None
    if s.before.kind == "NUMBER" and s.token.text.startswith("x"):
        expected = f"expected `,` or `{_CLOSING[s.opener.kind]}`{s.found}"
        return Finding(expected, "a size is written without blanks: `3x3`")
    return Finding(f"expected `,` before `{s.token.text}`", f"add `,` after {s.previous}")


def _two_values(s: _Scene) -> Finding | None:
    if s.before is None or not ends_value(s.before) or not starts_value(s.token) or not s.expected & _OPERATORS:
        return None
    if s.before.kind == "NUMBER" and s.token.text.startswith("x"):
        return Finding(f"expected an operator before `{s.token.text}`", "a size is written without blanks: `3x3`")
    help_ = "layers are joined by `->`, statements start with a keyword or with `name =`"
    return Finding(f"expected an operator or a new statement{s.found}", help_)


def _anything(s: _Scene) -> Finding:
    return Finding(f"expected {_listed(s.expected)}{s.found}")


def _listed(expected: frozenset[str]) -> str:
    """Return the terminals in words: values and operators as one each."""
    words: list[str] = []
    rest = set(expected)
    if expected_value(expected):
        words.append("a value")
        rest -= _VALUE | {"STRING", "TRUE", "FALSE", "_IF", "_NEXT", "_FREEZE", "_RECOMPUTE", "NOT", "ADD"}
    if len(rest & _OPERATORS) > 2:
        words.append("an operator")
        rest -= _OPERATORS
    spelling = {name: f"`{word}`" for word, (name, _) in lexicon().words.items()}
    for name, pattern in lexicon().tables["tokens"]:
        spelling[name] = _KINDS.get(name) or f"`{pattern.replace(chr(92), '')}`"
    spelling[END] = "the end"
    words += sorted(spelling[kind] for kind in rest)
    shown = words[:8]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " or " + shown[-1]


_RULES: tuple[Callable[[_Scene], Finding | None], ...] = (
    _other_language,
    _outside_an_item,
    _inside_a_body,
    _no_assignment,
    _header,
    _declaration,
    _equal_sign,
    _colon,
    _conditional,
    _comparison,
    _missing_value,
    _missing_comma,
    _two_values,
    _anything,
)
