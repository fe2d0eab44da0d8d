"""Check tests/layers/reference.py against PyTorch: run by hand, `python tests/oracle/layers.py`, where torch is installed.

PyTorch 2.13 agreed when these references were written; the tests themselves need NumPy only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.layers import reference as r

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(0)
checked = 0


def draw(*shape):
    return rng.standard_normal(shape)


def equal(name, ours, theirs):
    global checked
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-12, err_msg=name)
    checked += 1


T = torch.from_numpy
for n, conv, back in ((1, F.conv1d, F.conv_transpose1d), (2, F.conv2d, F.conv_transpose2d), (3, F.conv3d, F.conv_transpose3d)):
    size = (9, 8, 7)[:n]
    for stride, pad, dilation, groups in ((1, 0, 1, 1), (2, 1, 1, 2), (3, 2, 2, 1), (1, 1, 2, 4)):
        x, w, b = draw(2, 4, *size), draw(8, 4 // groups, *(3, 2, 3)[:n]), draw(8)
        options = {"stride": [stride] * n, "dilation": [dilation] * n, "groups": groups}
        equal("conv", r.conv(x, w, b, begins=[pad] * n, **options), conv(T(x), T(w), T(b), padding=pad, **options))
        w = draw(4, 8 // groups, *(3, 2, 3)[:n])
        for extra in {0, stride - 1}:
            ours = r.conv_transpose(x, w, b, begins=[pad] * n, ends=[pad] * n, extra=[extra] * n, **options)
            equal("conv_transpose", ours, back(T(x), T(w), T(b), padding=pad, output_padding=extra, **options))

for n, largest, mean in ((1, F.max_pool1d, F.avg_pool1d), (2, F.max_pool2d, F.avg_pool2d), (3, F.max_pool3d, F.avg_pool3d)):
    for size in ((8, 7, 5), (9, 6, 6), (5, 5, 5)):
        for kernel, stride, pad in ((2, 2, 0), (3, 2, 1), (2, 3, 1), (3, 1, 1), (3, 3, 0)):
            for ceil in (False, True):
                x = draw(2, 3, *size[:n])
                options = {"kernel": [kernel] * n, "stride": [stride] * n, "begins": [pad] * n, "ceil": ceil}
                equal("max", r.pool(x, **options), largest(T(x), kernel, stride, pad, ceil_mode=ceil))
                for count in (False, True):
                    theirs = mean(T(x), kernel, stride, pad, ceil_mode=ceil, count_include_pad=count)
                    equal("mean", r.pool(x, mean=True, count_pad=count, **options), theirs)

x = draw(2, 6, 5, 4)
for size in (1, 3, 5, 9):
    equal("lrn", r.lrn(x, size, 0.3, 0.75, 2.0), F.local_response_norm(T(x), size, 0.3, 0.75, 2.0))
for scale in ((2, 2), (3, 2), (1, 4)):
    theirs = F.interpolate(T(x), scale_factor=scale, mode="bilinear", align_corners=False)
    equal("upsample", r.upsample_linear(x, scale), theirs)
equal("layernorm", r.normalise(x, (3,)), F.layer_norm(T(x), (4,)))
equal("layernorm of images", r.normalise(x, (1, 2, 3)), F.layer_norm(T(x), (6, 5, 4)))
equal("groupnorm", r.normalise(x.reshape(2, 3, -1), (2,)).reshape(x.shape), F.group_norm(T(x), 3))
equal("softmax", r.softmax(x, 1), F.softmax(T(x), 1))
equal("erf", r.erf(x), torch.erf(T(x)))
print(f"{checked} results equal PyTorch {torch.__version__}")
