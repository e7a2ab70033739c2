"""onnxruntime's ``Conv``: a model of one node, its weight a constant that the session may pack beforehand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from convext.benchmark.suite import Job
from convext.benchmark.workload import Workload


class OnnxruntimePeer:
    """Input and output are bound to buffers that exist already."""

    name = "onnxruntime"
    pool = "onnxruntime"
    version = onnxruntime.__version__
    quick_to_prepare = False

    def why_not(self, job: Job) -> str | None:
        if job.pass_name != "forward":
            return "onnxruntime runs forward passes"
        return None if job.dtype == "f32" else "its CPU convolution is made for float32"

    def variants(self, job: Job, workload: Workload) -> dict[str, Callable[[], object]]:
        image = workload.input("contiguous").numpy()
        weight = workload.weight("contiguous").numpy()
        output = np.empty(workload.grad_output("contiguous").shape, np.float32)
        session = self._session(job, image, weight, output)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(image))
        binding.bind_output("y", "cpu", 0, np.float32, output.shape, output.ctypes.data)

        def run() -> np.ndarray:
            session.run_with_iobinding(binding)
            return output

        return {"NCHW": run}

    @staticmethod
    def _session(job: Job, image: np.ndarray, weight: np.ndarray, output: np.ndarray) -> onnxruntime.InferenceSession:
        layer = job.layer
        node = helper.make_node(
            "Conv",
            ["x", "w"],
            ["y"],
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.padding, *layer.padding],
            dilations=layer.dilation,
            group=layer.groups,
        )
        graph = helper.make_graph(
            [node],
            "conv",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, output.shape)],
            [numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Its threads spin while it runs, but do not go on to take cores from those that are timed after it.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def make() -> OnnxruntimePeer:
    return OnnxruntimePeer()
