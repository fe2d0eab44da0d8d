"""The results as Markdown, for the README."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Case = Mapping[str, Any]


def report(found: Mapping[str, Any]) -> str:
    """Return the tables of all that was measured: training, the rest of each case, summaries, overhead."""
    cases = found["cases"]
    notes = Footnotes()
    parts = [
        _machine(found["machine"]),
        *_training([c for c in cases if c["nnspec_ms"] is not None], notes),
        *_start(cases, notes),
        *_memory([c for c in cases if c.get("memory")], notes),
        *_summaries(found.get("summary") or [], notes),
        *_overhead(found.get("overhead")),
        *(f"`{c['case']}` failed: {c['error']}" for c in cases if c.get("error")),
        *(f"`{c['case']}` does not compute the same thing." for c in cases if not c["same"] and not c.get("error")),
        notes.text(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


class Footnotes:
    """Reasons, numbered in the order in which cells refer to them; equal ones share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, reason: str) -> str:
        """Return the cell of a framework that is absent for a reason."""
        return f"fails[^{self._numbers.setdefault(reason, len(self._numbers) + 1)}]"

    def text(self) -> str:
        """Return the notes themselves."""
        return "\n".join(f"[^{number}]: {reason}" for reason, number in self._numbers.items())


def geometric_mean(cases: Iterable[Case]) -> float | None:
    """Return the geometric mean of the ratios; None where there are none."""
    ratios = [c["ratio"] for c in cases if c["ratio"] is not None]
    return statistics.geometric_mean(ratios) if ratios else None


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    where = f"{machine['gpu']} with {machine['cpu']}" if machine.get("gpu") else machine["cpu"]
    return f"{where}, {machine['threads']} threads, Python {machine['python']}, {versions}."


def _training(cases: Sequence[Case], notes: Footnotes) -> list[str]:
    if not cases:
        return []
    peers = _names(c["peers"] | c["absent"] for c in cases)
    limits = any("limit" in c for c in cases)
    rows = []
    for c in cases:
        cells = [_timed(c["nnspec_ms"], c["spread"]["nnspec"])]
        cells += [_timed(c["peers"][p], c["spread"][p]) if p in c["peers"] else _why(c, p, notes) for p in peers]
        cells.append(_ratio(c["ratio"]))
        if limits:
            cells.append(f"{c['limit']['fraction']['nnspec']:.2f} {c['limit']['bound']}" if "limit" in c else "")
        rows.append([c["case"], *cells])
    mean = geometric_mean(cases)
    if mean is not None:
        rows.append(["geometric mean", *[""] * (1 + len(peers)), f"**{mean:.2f}**", *[""] * limits])
    said = (
        "Milliseconds of one training step: median over rounds in turns, smallest and largest in brackets. "
        "The ratio is the fastest peer's time to nnspec's."
    )
    if limits:
        said += " The limit is what part of the device's arithmetic or bandwidth, whichever binds, nnspec reaches."
    return [said, _table(["case", "nnspec", *peers, "ratio", *["limit"] * limits], rows)]


def _start(cases: Sequence[Case], notes: Footnotes) -> list[str]:
    cases = [c for c in cases if "first_step_s" in c]
    if not cases:
        return []
    batches = [one["batch"] for one in cases[0].get("inference", [])]
    frameworks = _names(c["first_step_s"] | c["absent"] for c in cases)
    rows = []
    for c in cases:
        row = [c["case"]]
        for one in c.get("inference", []):
            row += [f"{one['nnspec_ms']:.3f}", _ratio(one["ratio"])]
        row += [f"{c['first_step_s'][f]:.1f}" if f in c["first_step_s"] else _why(c, f, notes) for f in frameworks]
        rows.append(row)
    heads = [head for b in batches for head in (f"batch {b}, ms", "ratio")]
    return [
        ("Milliseconds of one prediction and the fastest peer's time to nnspec's; s" if batches else "S")
        + "econds from the start of the process to the end of the first step, compilation included.",
        _table(["case", *heads, *(f"{f}, first step" for f in frameworks)], rows),
    ]


def _memory(cases: Sequence[Case], notes: Footnotes) -> list[str]:
    if not cases:
        return []
    frameworks = _names(c["memory"] | c["absent"] for c in cases)
    exact = all(one["exact"] for c in cases for one in c["memory"].values())
    rows = []
    for c in cases:
        cells = []
        for f in frameworks:
            one = c["memory"].get(f)
            cells.append(f"{_mib(one['training'])} ({_mib(one['process'])})" if one else _why(c, f, notes))
        rows.append([c["case"], *cells, _mib(c["memory_predicted"])])
    said = (
        "MiB of resident memory: what training steps hold at their peak beyond the loaded framework; in brackets "
        "the peak of the whole process, libraries and compilation included. `summary --training` predicts the last."
    )
    if not exact:
        said += " The kernel does not let a process reset its peak here, so the first includes compilation too."
    return [said, _table(["case", *frameworks, "nnspec, predicted"], rows)]


def _summaries(summaries: Sequence[Mapping[str, Any]], notes: Footnotes) -> list[str]:
    if not summaries:
        return []
    tools = _names(s["seconds"] | s["absent"] for s in summaries)
    rows = [
        [s["case"], *(f"{s['seconds'][t]:.2f}" if t in s["seconds"] else _why(s, t, notes) for t in tools)]
        for s in summaries
    ]
    return ["Seconds of a summary, whole process.", _table(["network", *tools], rows)]


def _overhead(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    step, session, loading = found["step"], found["session"], found["loading"]
    rows = [
        [f"a step of {step['case']}", f"{step['step_us']:.0f} µs"],
        ["of it in ONNX Runtime", f"{step['onnxruntime_us']:.0f} µs"],
        ["of it in Python", f"{step['python_us']:.0f} µs"],
        [f"compiling the step of {session['case']}", f"{session['compile_s']:.2f} s"],
        ["creating its session", f"{session['session_s']:.2f} s"],
        [f"a step of {loading['case']} on a batch at hand", f"{loading['step_ms']:.3f} ms"],
        ["the same in an epoch over shuffled data", f"{loading['epoch_step_ms']:.3f} ms"],
    ]
    return ["What nnspec costs beside the arithmetic.", _table(["", "time"], rows)]


def _why(found: Mapping[str, Any], name: str, notes: Footnotes) -> str:
    return notes.cell(found["absent"][name]) if name in found["absent"] else ""


def _names(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return all keys in the order in which they appear first."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = "|---|" + "--:|" * (len(heads) - 1)
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def _timed(ms: float, spread: Sequence[float]) -> str:
    digits = 3 if ms < 10 else 1
    return f"{ms:.{digits}f} ({spread[0]:.{digits}f}-{spread[1]:.{digits}f})"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}" if size < 10 << 20 else f"{size / (1 << 20):.0f}"
