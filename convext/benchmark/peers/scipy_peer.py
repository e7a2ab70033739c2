"""scipy: ``ndimage.correlate`` for any kernel and ``signal.oaconvolve`` for large ones, plane by plane."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from scipy import ndimage, signal

from convext.benchmark.suite import Job
from convext.benchmark.workload import Workload


class ScipyPeer:
    """Both functions run on one thread, whatever the job has."""

    name = "scipy"
    pool = "torch"  # it has no threads of its own
    version = scipy.__version__
    quick_to_prepare = True

    def why_not(self, job: Job) -> str | None:
        layer = job.layer
        if job.pass_name != "forward" or job.dtype not in ("f32", "f64"):
            return "scipy has no gradients" if job.pass_name != "forward" else "timed for float32 and float64 only"
        if not layer.groups == layer.in_channels == layer.out_channels <= 4:
            return "scipy adds up no channels"
        centred = all(2 * pad == kernel - 1 for pad, kernel in zip(layer.padding, layer.kernel, strict=True))
        if layer.stride != (1, 1) or layer.dilation != (1, 1) or not centred:
            return "scipy has no stride and no dilation"
        return None

    def variants(self, job: Job, workload: Workload) -> dict[str, Callable[[], object]]:
        images = workload.input("contiguous").numpy().reshape(-1, *job.layer.size)
        kernels = workload.weight("contiguous").numpy().reshape(-1, *job.layer.kernel)
        results = np.empty_like(images)
        flipped = [np.ascontiguousarray(kernel[::-1, ::-1]) for kernel in kernels]

        def correlate() -> np.ndarray:
            for i, image in enumerate(images):
                ndimage.correlate(image, kernels[i % len(kernels)], output=results[i], mode="constant")
            return results

        def convolve() -> list[np.ndarray]:
            return [signal.oaconvolve(image, flipped[i % len(flipped)], mode="same") for i, image in enumerate(images)]

        if min(job.layer.kernel) < 5:
            return {"ndimage.correlate": correlate}
        return {"ndimage.correlate": correlate, "signal.oaconvolve": convolve}


def make() -> ScipyPeer:
    return ScipyPeer()
