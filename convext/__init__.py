"""2-D cross-correlation, which deep learning calls convolution, as PyTorch should have it.

`conv2d` has the signature of ``torch.nn.functional.conv2d`` and `Conv2D` drops in for ``torch.nn.Conv2d``; behind
them are hand-written kernels that are bitwise deterministic. `corr2d` is the textbook's function.
"""

from __future__ import annotations

import torch as _torch  # noqa: F401  (loads the libraries that the native part is linked with)

try:
    from convext import _C
except ImportError as error:  # pragma: no cover
    raise ImportError(
        f"convext's native part could not be loaded ({error}); build it with "
        "`pip install --no-build-isolation .` in the environment that has torch"
    ) from error

from convext import reference
from convext.autograd import CrossCorrelation2d
from convext.build import build_info
from convext.feature_maps import FeatureMaps, feature_maps
from convext.functional import conv2d, convolve2d, corr2d
from convext.modules import Conv2D, replace_conv2d
from convext.plan import available_kernels, explain, force_kernel
from convext.precision import float32_precision, get_float32_precision, set_float32_precision
from convext.receptive_field import receptive_field

__version__: str = _C.build_info()["version"]

__all__ = [
    "Conv2D",
    "CrossCorrelation2d",
    "FeatureMaps",
    "available_kernels",
    "build_info",
    "conv2d",
    "convolve2d",
    "corr2d",
    "explain",
    "feature_maps",
    "float32_precision",
    "force_kernel",
    "get_float32_precision",
    "receptive_field",
    "reference",
    "replace_conv2d",
    "set_float32_precision",
]
