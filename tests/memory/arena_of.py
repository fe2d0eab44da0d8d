"""Tell what of ONNX Runtime's CPU allocator two runs of a model touch: `python arena_of.py MODEL.onnx REUSE REGION`.

REUSE is 1 or 0: whether ONNX Runtime plans which tensors share memory. REGION is how many bytes the allocator begins
with, 0 where that is left to it. Prints JSON: the KiB touched of each region that the allocator took, in the order in
which it took them, and the names of the nodes in the order in which they ran.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from nnspec_runtime.session import new_arena, numpy_dtype

_PAGE = os.sysconf("SC_PAGE_SIZE")
_RUNS = 2
"""The second one finds what the first one left, and cuts it up in its own way."""


def touched(start: int, end: int) -> int:
    """Return how many KiB between two addresses are in memory."""
    first, last = start // _PAGE, -(-end // _PAGE)
    with open("/proc/self/pagemap", "rb") as pages:
        pages.seek(8 * first)
        entries = np.frombuffer(pages.read(8 * (last - first)), np.uint64)
    return int((entries >> np.uint64(63)).sum()) * _PAGE // 1024


def main() -> None:
    path, reuse, region = sys.argv[1:]
    log = Path(path).with_suffix(".log")
    # The allocator tells what it takes in its log, which goes to standard error.
    os.dup2(os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC), 2)
    ort.set_default_logger_severity(1)
    new_arena(int(region))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    options.enable_mem_reuse = reuse == "1"
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(path).with_suffix(""))
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    kept = []
    for one in session.get_inputs():
        kept.append(ort.OrtValue.ortvalue_from_numpy(np.ones(one.shape, numpy_dtype(one.type))))
        binding.bind_ortvalue_input(one.name, kept[-1])
    for one in session.get_outputs():
        kept.append(ort.OrtValue.ortvalue_from_numpy(np.zeros(one.shape, numpy_dtype(one.type))))
        binding.bind_ortvalue_output(one.name, kept[-1])
    for _ in range(_RUNS):
        session.run_with_iobinding(binding)
    regions = re.findall(r"Allocated memory at (0x[0-9a-f]+) to (0x[0-9a-f]+)", log.read_text())
    found = [touched(int(start, 16), int(end, 16)) for start, end in regions]
    events = json.loads(Path(session.end_profiling()).read_text())
    runs = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    order = [e["name"].removesuffix("_kernel_time") for e in sorted(runs, key=lambda e: e["ts"])]
    order = order[: len(order) // _RUNS]
    print(json.dumps({"regions": found, "order": order}))


if __name__ == "__main__":
    main()
