"""OpenCV's ``filter2D``: filters of gray images, and of colour images plane by plane."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from convext.benchmark.suite import Job
from convext.benchmark.workload import Workload


class OpenCVPeer:
    """One call for each plane; the results go into arrays that exist already."""

    name = "opencv"
    pool = "opencv"
    version = cv2.__version__
    quick_to_prepare = True

    def why_not(self, job: Job) -> str | None:
        layer = job.layer
        if job.pass_name != "forward" or job.dtype not in ("f32", "f64"):
            return (
                "filter2D has no gradients" if job.pass_name != "forward" else "filter2D saturates, and has no 16 bits"
            )
        if not layer.groups == layer.in_channels == layer.out_channels <= 4:
            return "filter2D adds up no channels"
        centred = all(2 * pad == kernel - 1 for pad, kernel in zip(layer.padding, layer.kernel, strict=True))
        if layer.stride != (1, 1) or layer.dilation != (1, 1) or not centred:
            return "filter2D has no stride, no dilation, and keeps the size"
        return None

    def variants(self, job: Job, workload: Workload) -> dict[str, Callable[[], object]]:
        images = workload.input("contiguous").numpy().reshape(-1, *job.layer.size)
        kernels = workload.weight("contiguous").numpy().reshape(-1, *job.layer.kernel)
        results = np.empty_like(images)
        planes = [(image, kernels[i % len(kernels)], results[i]) for i, image in enumerate(images)]
        cv2.setNumThreads(job.threads)

        def run() -> np.ndarray:
            for image, kernel, result in planes:
                cv2.filter2D(image, -1, kernel, dst=result, borderType=cv2.BORDER_CONSTANT)
            return results

        return {"filter2D": run}


def make() -> OpenCVPeer:
    return OpenCVPeer()
