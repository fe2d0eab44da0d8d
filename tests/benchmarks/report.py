"""The results as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any


def tables(found: Mapping[str, Any]) -> str:
    """Return the tables of training, inference, memory and start-up."""
    machine, cases = found["machine"], [c for c in found["cases"] if "ratio" in c]
    if not cases:
        return "Nothing was measured.\n"
    peers = list(dict.fromkeys(p for c in cases for p in c["peers"]))
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    lines = [
        f"{machine['cpu']}, {machine['threads']} threads, Python {machine['python']}, {versions}. "
        "Milliseconds of one training step, median over rounds in turns, smallest to largest in brackets; "
        "the ratio is that of the fastest peer to nnspec.",
        "",
        f"| case | nnspec | {' | '.join(peers)} | ratio |",
        "|---|--:|" + "--:|" * (len(peers) + 1),
    ]
    for c in cases:
        cells = [_timed(c["nnspec_ms"], c["spread"]["nnspec"])]
        cells += [_timed(c["peers"][p], c["spread"][p]) if p in c["peers"] else "fails" for p in peers]
        lines.append(f"| {c['case']} | {' | '.join(cells)} | {c['ratio']:.2f} |")
    mean = statistics.geometric_mean(c["ratio"] for c in cases)
    lines += [f"| geometric mean | |{' |' * len(peers)} **{mean:.2f}** |", ""]
    batches = [b for b in (1, 32) if f"infer_{b}" in cases[0]]
    if batches:
        lines += [
            "Ratios of one prediction, of peak memory (the smallest peer's to nnspec's, whole process), and seconds "
            "from the start of the process to the end of the first step.",
            "",
            "| case | "
            + " | ".join(f"batch {b}" for b in batches)
            + " | memory | first step, nnspec | "
            + " | ".join(peers)
            + " |",
            "|---|" + "--:|" * (len(batches) + 2 + len(peers)),
        ]
        for c in cases:
            memory = min(c["peak_bytes"][p] for p in c["peers"]) / c["peak_bytes"]["nnspec"]
            cells = [f"{c[f'infer_{b}']['ratio']:.2f}" for b in batches] + [f"{memory:.2f}"]
            cells += [f"{c['first_step_s'][f]:.1f}" if f in c["first_step_s"] else "fails" for f in ("nnspec", *peers)]
            lines.append(f"| {c['case']} | {' | '.join(cells)} |")
        lines.append("")
    if found.get("summary"):
        names = list(found["summary"][0]["seconds"])
        lines += [
            "Seconds of a summary, whole process.",
            "",
            f"| case | {' | '.join(names)} |",
            "|---|" + "--:|" * len(names),
        ]
        lines += [
            f"| {s['case']} | " + " | ".join(f"{s['seconds'][n]:.2f}" for n in names) + " |" for s in found["summary"]
        ]
        lines.append("")
    return "\n".join(lines)


def _timed(ms: float, spread: list[float]) -> str:
    digits = 3 if ms < 10 else 1
    return f"{ms:.{digits}f} ({spread[0]:.{digits}f}-{spread[1]:.{digits}f})"
