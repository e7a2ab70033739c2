"""JAX: ``lax.conv_general_dilated`` and its derivatives, compiled by XLA, in both layouts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from convext.benchmark.suite import Job
from convext.benchmark.workload import Workload

#: Its layouts of input, weight and output, and how to get there from (N, C, H, W).
LAYOUTS: dict[str, tuple[tuple[str, str, str], tuple[int, ...], tuple[int, ...]]] = {
    "NCHW": (("NCHW", "OIHW", "NCHW"), (0, 1, 2, 3), (0, 1, 2, 3)),
    "NHWC": (("NHWC", "HWIO", "NHWC"), (0, 2, 3, 1), (2, 3, 1, 0)),
}


class JaxPeer:
    """XLA takes as many threads as the process has cores; it cannot be told otherwise once it has started."""

    name = "jax"
    pool = "jax"
    version = jax.__version__
    quick_to_prepare = False

    def why_not(self, job: Job) -> str | None:
        if job.dtype != "f32":
            return "timed for float32 only"
        if job.threads != len(os.sched_getaffinity(0)):
            return "XLA always takes all cores"
        return None

    def variants(self, job: Job, workload: Workload) -> dict[str, Callable[[], object]]:
        return {layout: self._function(job, workload, layout) for layout in LAYOUTS}

    @staticmethod
    def _function(job: Job, workload: Workload, layout: str) -> Callable[[], object]:
        layer = job.layer
        numbers, image_order, weight_order = LAYOUTS[layout]

        def array(tensor: Any, order: tuple[int, ...]) -> jax.Array:
            return jax.device_put(np.ascontiguousarray(tensor.numpy().transpose(order)))

        image = array(workload.input("contiguous"), image_order)
        weight = array(workload.weight("contiguous"), weight_order)

        def forward(image: jax.Array, weight: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(
                image,
                weight,
                layer.stride,
                [(pad, pad) for pad in layer.padding],
                rhs_dilation=layer.dilation,
                dimension_numbers=numbers,
                feature_group_count=layer.groups,
            )

        if job.pass_name == "forward":
            compiled = jax.jit(forward).lower(image, weight).compile()
            return lambda: compiled(image, weight).block_until_ready()
        grad = array(workload.grad_output("contiguous"), image_order)
        of_input = job.pass_name == "grad_input"

        def backward(image: jax.Array, weight: jax.Array, grad: jax.Array) -> jax.Array:
            if of_input:
                return jax.vjp(lambda image: forward(image, weight), image)[1](grad)[0]
            return jax.vjp(lambda weight: forward(image, weight), weight)[1](grad)[0]

        compiled_backward = jax.jit(backward).lower(image, weight, grad).compile()
        return lambda: compiled_backward(image, weight, grad).block_until_ready()


def make() -> JaxPeer:
    return JaxPeer()
