"""Write digits-train.npz and digits-test.npz: the 8x8 handwritten digits, split once and for all.

Run with scikit-learn installed: `python examples/data/make_digits.py`. The same files come out byte for byte, apart
from the times that a zip archive holds, which are set to its epoch.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
TEST_SHARE = 0.2
SEED = 0


def main() -> None:
    """Split each class by the same shares, then write both halves in a fixed random order."""
    digits = load_digits()
    image = (digits.data.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    label = digits.target.astype(np.int64)
    rng = np.random.Generator(np.random.PCG64(SEED))
    test = np.zeros(len(label), dtype=bool)
    for digit in range(10):
        places = rng.permutation(np.flatnonzero(label == digit))
        test[places[: round(len(places) * TEST_SHARE)]] = True
    for name, chosen in (("train", ~test), ("test", test)):
        order = rng.permutation(np.flatnonzero(chosen))
        write(HERE / f"digits-{name}.npz", image=image[order], label=label[order])


def write(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed .npz whose bytes depend on the arrays alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            data = BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data.getvalue())


if __name__ == "__main__":
    main()
