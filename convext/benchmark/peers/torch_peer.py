"""``torch.nn.functional.conv2d`` and its backward passes, in both layouts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from convext.benchmark.suite import LAYOUTS, Job
from convext.benchmark.workload import Workload


class TorchPeer:
    """torch, with its backends' settings as they are."""

    name = "torch"
    pool = "torch"
    version = torch.__version__
    quick_to_prepare = True

    def why_not(self, job: Job) -> str | None:
        return None

    def variants(self, job: Job, workload: Workload) -> dict[str, Callable[[], object]]:
        return {layout: self._function(job.pass_name, workload, layout) for layout in LAYOUTS}

    def _function(self, pass_name: str, workload: Workload, layout: str) -> Callable[[], object]:
        layer = workload.layer
        x, weight = workload.input(layout), workload.weight(layout)
        if pass_name == "forward":
            return lambda: F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        grad = workload.grad_output(layout)
        mask = [pass_name == "grad_input", pass_name == "grad_weight", False]
        settings = (list(layer.stride), list(layer.padding), list(layer.dilation), False, [0, 0], layer.groups)
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(grad, x, weight, None, *settings, mask)


def make() -> TorchPeer:
    return TorchPeer()
