"""`convext.receptive_field`: unknown layers, the report and its pictures, what is left as it was, and bad input."""

from __future__ import annotations

import copy
import doctest
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import convext
from convext.receptive_field import Rectangle, Report, Row, rules
from convext.receptive_field._gradients import Capture

# Unknown layers.


@torch.library.custom_op("convext_test::strided_mean", mutates_args=())
def strided_mean(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, (3, 5), (2, 1), (1, 2)) * 1


def _remember_shape(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.shape = inputs[0].shape


def _strided_mean_backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = gradient.new_zeros(ctx.shape).requires_grad_()
        (result,) = torch.autograd.grad(F.avg_pool2d(x, (3, 5), (2, 1), (1, 2)), x, gradient)
    return result


strided_mean.register_autograd(_strided_mean_backward, setup_context=_remember_shape)


@torch.library.custom_op("convext_test::dilate", mutates_args=())
def dilate(x: torch.Tensor) -> torch.Tensor:
    """Without a derivative."""
    return F.max_pool2d(x, 3, 1, 1) * 1


@torch.library.custom_op("convext_test::spread", mutates_args=())
def spread(x: torch.Tensor) -> torch.Tensor:
    """The rank changes, so rows and columns are not told apart."""
    return x.flatten(1).cumsum(1)


@torch.library.custom_op("convext_test::faint", mutates_args=())
def faint(x: torch.Tensor) -> torch.Tensor:
    """What the neighbours add is lost by rounding, but not in the gradient."""
    return x + 1e-12 * F.avg_pool2d(x, 3, 1, 1)


def _faint_backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    return gradient + 1e-12 * F.avg_pool2d(gradient, 3, 1, 1)


faint.register_autograd(_faint_backward)


@torch.library.custom_op("convext_test::fused", mutates_args=())
def fused(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + F.avg_pool2d(y, 5, 1, 2)


def _fused_backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return gradient, F.avg_pool2d(gradient, 5, 1, 2)


fused.register_autograd(_fused_backward)


class DifferenceOfRows(torch.autograd.Function):
    """Computed by NumPy, where no operator of torch is seen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        array = x.detach().numpy()
        return torch.from_numpy(array[:, :, 2:] - array[:, :, :-2])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return F.pad(gradient, (0, 0, 2, 0)) - F.pad(gradient, (0, 0, 0, 2))


class Doubled(torch.autograd.Function):
    """Made of torch's operators, so there is nothing to probe."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 3, 2) * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the trace needs no gradients")


class Layer(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def around(function: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Layer(function), nn.Conv2d(4, 4, 3, padding=1))


@pytest.mark.parametrize(
    ("function", "size", "jump", "start", "verified"),
    [
        (strided_mean, (5, 7), (2, 1), (-2, -3), True),
        (dilate, (5, 5), (1, 1), (-2, -2), None),
        (faint, (5, 5), (1, 1), (-2, -2), True),
        (DifferenceOfRows.apply, (5, 3), (1, 1), (-1, -1), True),
        (lambda x: torch.from_numpy(x.detach().numpy().max(3, keepdims=True)), (3, 16), (1, 0), (-1, 0), None),
    ],
)
def test_unknown_layers_are_probed(
    function: Callable[..., Any], size: Any, jump: Any, start: Any, verified: bool | None
) -> None:
    report = convext.receptive_field(around(function), 16, verify=True)
    row = report["1"]
    assert (row.size, row.jump, row.start) == (size, jump, start)
    assert row.probed and row.verified is verified
    assert not report["0"].probed and not report["2"].probed
    assert report["2"].size[0] == size[0] + 2 * jump[0]
    assert "probed" in str(report)
    assert not report.mismatches


def test_border_units_of_a_probed_layer() -> None:
    report = convext.receptive_field(around(strided_mean), 16)
    assert report.unit("1", (0, 0)).rectangle == Rectangle(0, 0, 3, 4)
    assert report.unit("1", (0, 0)).unclipped == Rectangle(-2, -3, 3, 4)


def test_an_unknown_operator_called_by_a_model() -> None:
    report = convext.receptive_field(lambda x: strided_mean(x) + 1, (3, 16, 16))
    assert [(row.name, row.size, row.probed) for row in report] == [("strided_mean", (3, 5), True)]


def test_an_unknown_operator_of_another_shape_sees_everything() -> None:
    report = convext.receptive_field(lambda x: spread(x), (3, 16, 16))
    assert report["spread"].probed and report["spread"].global_view
    assert report.unit("spread").rectangle == Rectangle(0, 0, 16, 16)


def test_a_function_made_of_known_operators_is_not_probed() -> None:
    report = convext.receptive_field(around(Doubled.apply), 16)
    assert report["1"].size == (5, 5) and not report["1"].probed


def test_a_model_that_loses_sight_of_the_image_says_so() -> None:
    class Lossy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Conv2d(3, 4, 3)
            self.after = nn.Conv2d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.after(DifferenceOfRows.apply(self.before(x)))

    report = convext.receptive_field(nn.Sequential(Lossy()), 16)
    assert [row.name for row in report] == ["0.before", "0"]
    assert report["0"].size == (7, 5) and report["0"].probed and "missing" in report["0"].note


# The rows.


def test_calls_of_one_layer_and_functions_have_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.conv(x)
            x = torch.relu(x + self.conv(x))
            return F.max_pool2d(self.inner(x).flatten(2).unflatten(2, (8, 8)), 2)

    report = convext.receptive_field(Shared(), 8)
    names = ["conv", "add", "conv#2", "add#2", "inner.0", "inner.1", "max_pool2d"]
    assert [row.name for row in report] == names
    assert [row.kind for row in report][:2] == ["Conv2d", "add"]
    assert report["inner"] is not report["inner.1"] and report["inner"].size == report["inner.1"].size == (5, 5)
    assert report["conv#2"].size == (5, 5) and report[0] is report["conv"] and report[-1].size == (6, 6)
    assert "inner" in report and "inner.7" not in report and len(report) == len(list(report)) == 7


def test_order_is_that_of_the_run_and_unused_layers_are_left_out() -> None:
    class Reordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(3, 3, 5)
            self.unused = nn.Conv2d(3, 3, 9)
            self.first = nn.Conv2d(3, 3, 3, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    report = convext.receptive_field(Reordered(), 32)
    assert [(row.name, row.size) for row in report] == [("first", (3, 3)), ("last", (11, 11))]


def test_input_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(5, 4, 3, stride=2))
    for size in (16, (16, 16), (5, 16, 16), (2, 5, 16, 16), torch.Size((5, 16, 16)), [16, 16]):
        report = convext.receptive_field(model, size, verify=True)
        assert report.input_size == (16, 16) and report["0"].output_size == (7, 7)
        assert report["0"].verified
    assert convext.receptive_field(model, (9, 16))["0"].output_size == (4, 7)


def test_single_layers_and_functions_are_models() -> None:
    assert [row.name for row in convext.receptive_field(nn.Conv2d(3, 2, 3), 8)] == ["Conv2d"]
    assert convext.receptive_field(convext.Conv2D(1, 2, 5), 8)["Conv2D"].size == (5, 5)
    report = convext.receptive_field(lambda x: F.avg_pool2d(x, 2) + x[..., ::2, ::2], (3, 8, 8))
    assert [(row.name, row.size) for row in report] == [("avg_pool2d", (2, 2)), ("add", (2, 2))]


def test_models_that_return_several_things() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> Any:
            first = self.one(x)
            return {"sizes": (x.shape[-2:], None), "maps": [first, self.two(first)]}

    assert convext.receptive_field(Pyramid(), 16)[""].size == (3, 3)
    empty = convext.receptive_field(nn.Sequential(), (3, 8, 8))
    assert len(empty) == 0 and empty.to_records() == [] and "layer" in str(empty)
    assert len(convext.receptive_field(lambda x: torch.ones(3), (3, 8, 8))) == 0


def test_units() -> None:
    report = convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 5, stride=3, padding=2)), (20, 14))
    assert report["0"].output_size == (7, 5)
    assert report.unit("0", (0, 0)).rectangle == Rectangle(top=0, left=0, bottom=3, right=3)
    assert report.unit("0", (0, 0)).unclipped == Rectangle(-2, -2, 3, 3)
    assert report.unit("0", (-1, -1)) == report.unit("0", (6, 4))
    assert report.unit("0", (-1, -1)).rectangle == Rectangle(16, 10, 20, 14)
    assert report.unit("0").index == (3, 2) and report.unit("0").center == (9, 6)
    image = torch.zeros(20, 14)
    assert image[report.unit("0").rectangle.slices].shape == report.unit("0").rectangle.size == (5, 5)
    with pytest.raises(IndexError, match=r"layer '0' has 7 x 5 units, .* but it is \(7, 0\)"):
        report.unit("0", (7, 0))
    with pytest.raises(IndexError):
        report.unit("0", (0, -6))
    for index in (3, (1,), (1.0, 2), (True, 1), "ab"):
        with pytest.raises(TypeError, match="pair of ints"):
            report.unit("0", index)  # type: ignore[arg-type]


def test_units_that_see_only_padding() -> None:
    report = convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 2, padding=4)), 8, verify=True)
    assert report.unit("0", (0, 5)).rectangle == Rectangle(0, 0, 0, 0)
    assert report.unit("0", (0, 5)).unclipped == Rectangle(-4, 1, -2, 3)
    assert report["0"].verified


def test_names_that_do_not_exist() -> None:
    report = convext.receptive_field(networks.ResNet50(2), 32)
    with pytest.raises(KeyError, match=r"no layer 'layer4\.2\.conv9'.*close names: .*layer4\.2\.conv2"):
        report["layer4.2.conv9"]
    with pytest.raises(KeyError, match="no layer"):
        report.unit("nonsense")
    with pytest.raises(IndexError):
        report[10_000]


def test_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.table", None)
    report = convext.receptive_field(networks.SqueezeExcitation(), (32, 30))
    lines = str(report).splitlines()
    assert lines[0] == "Receptive fields for an image of 32 x 30 pixels"
    assert lines[1].split() == ["layer", "kind", "size", "jump", "start", "output", "remarks"]
    assert lines[3].split() == ["conv", "Conv2d", "3", "2", "-1", "16", "x", "15"]
    assert lines[-2].split() == ["mul", "mul", "3", "2", "-1", "16", "x", "15", "global"]
    assert len(lines) == 3 + len(report)
    assert repr(report) == "<Report: 6 layers, image of 32 x 30 pixels>"


def test_rich_table() -> None:
    rich = pytest.importorskip("rich.console")
    report = convext.receptive_field(networks.SqueezeExcitation(), 32, verify=True)
    console = rich.Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    text = console.export_text()
    assert "SqueezeExcitation" not in text and "Conv2d" in text and "global" in text and "yes" in text


def test_records() -> None:
    report = convext.receptive_field(networks.DeepLabHead(), (64, 48))
    records = report.to_records()
    assert len(records) == len(report)
    record = records[0]
    assert record["name"] == "backbone.0" and record["output_size_width"] == 24 and record["padding_height"] == 1
    assert all(list(other) == list(record) for other in records)
    assert all(isinstance(value, (str, int, float, bool, type(None))) for value in record.values())
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(records)
    assert frame.set_index("name").loc["atrous.2", "size_height"] == 79


# The check by gradients.


def test_a_wrong_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = rules.RULES["aten::max_pool2d_with_indices"]

    def wrong(call: Any) -> Any:
        call.arguments["kernel_size"] = [2, 2]
        return right(call)

    monkeypatch.setitem(rules.RULES, "aten::max_pool2d_with_indices", wrong)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 1))
    with pytest.warns(UserWarning, match="disagree for 2 of 3 rows: 1, 2"):
        report = convext.receptive_field(model, 17, verify=True)
    assert [row.verified for row in report] == [True, False, False]
    assert [row.name for row in report.mismatches] == ["1", "2"]
    assert str(report).count("NO") == 2


def test_rows_without_gradients_are_not_judged() -> None:
    report = convext.receptive_field(around(lambda x: x.detach()), 16, verify=True)
    assert [row.verified for row in report] == [True, None, None]


def test_what_is_captured_is_what_the_layer_returned() -> None:
    model = networks.SqueezeExcitation()
    layers = convext.receptive_field(model, 16)._layers
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    capture = Capture(list(layers.values()))
    with capture.watch(model):
        output = model(image)
    found = {name: capture.outputs[layer.place] for name, layer in layers.items()}
    gate = torch.sigmoid(found["fc2"])
    assert torch.equal(found["mul"], found["conv"] * gate[:, :, None, None])
    assert torch.equal(found["mean"], found["conv"].mean((2, 3))) and torch.equal(found[""], output)


# Effective fields and pictures.


def test_effective_field_lies_within_the_rectangle_and_is_largest_inside() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(1 if index == 0 else 8, 8, 3, padding=1) for index in range(6)))
    report = convext.receptive_field(model, 32)
    field = report.effective_field("5", (16, 16), samples=4)
    assert field.shape == (32, 32) and field.dtype == torch.float64
    box = report.unit("5", (16, 16)).rectangle
    inside = torch.zeros_like(field)
    inside[box.slices] = 1
    assert (field[inside == 0] == 0).all() and box.size == (13, 13)
    assert (field[inside == 1] > 0).all()
    # Luo et al.: it falls off towards the rim.
    assert field[14:19, 14:19].mean() > 20 * field[box.top, box.left : box.right].mean()
    # By own images, and the same whatever gradients are on.
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        once = report.effective_field("5", (16, 16), images)
    expected = torch.zeros(32, 32, dtype=torch.float64)
    for image in images:
        x = image[None].clone().requires_grad_()
        model(x)[0, :, 16, 16].sum().backward()
        expected += x.grad[0, 0].abs().double() / 2
    torch.testing.assert_close(once, expected)


def test_effective_field_of_bad_input() -> None:
    report = convext.receptive_field(around(dilate), 16)
    with pytest.raises(RuntimeError, match="no gradient leads from layer '2'"):
        report.effective_field("2")
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, 16, 16\)"):
        report.effective_field("0", images=torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="samples must be a positive int"):
        report.effective_field("0", samples=0)
    with pytest.raises(IndexError):
        report.effective_field("0", (16, 0))


def test_pictures() -> None:
    pytest.importorskip("matplotlib")
    report = convext.receptive_field(networks.vgg16(2), (40, 32))
    numpy = pytest.importorskip("numpy")
    photos: list[Any] = [None, torch.rand(3, 80, 70), torch.rand(50, 60), numpy.zeros((20, 30, 3), dtype="uint8")]
    for photo in photos:
        figure = report.draw("features.5", (0, -1), photo, samples=1)
        panels = figure.axes
        assert panels[0].get_images()[0].get_array().shape == (40, 32, 3)
        solid = [patch for patch in panels[0].patches if patch.get_linestyle() in ("-", "solid")][-1]
        box = report.unit("features.5", (0, -1)).rectangle
        assert (solid.get_x(), solid.get_y()) == (box.left - 0.5, box.top - 0.5)
        assert (solid.get_height(), solid.get_width()) == box.size
    assert len(report.draw("features.5", effective=False).axes) == 1
    with pytest.raises(ValueError, match="image must have shape"):
        report.draw("features.5", image=torch.zeros(5, 6, 7))
    with pytest.raises(TypeError, match="image must be a tensor"):
        report.draw("features.5", image=object())


def test_pictures_need_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    report = convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3)), 8)
    with pytest.raises(ImportError, match=r"convext\[plot\]"):
        report.draw("0")


# What is left as it was.


def test_the_model_is_left_as_it_was() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return F.dropout(x, 0.5, self.training)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Counting(), nn.Dropout(), nn.ReLU(inplace=True))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    report = convext.receptive_field(model, 16, verify=True)
    report.effective_field("4", samples=1)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model] == [True, False, True, True, True] and model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled() and torch._C._len_torch_dispatch_stack() == 0


def test_the_model_is_left_as_it_was_after_a_failure() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3)).train()
    with pytest.raises(RuntimeError, match=r"does not run on an image of shape \[1, 3, 16, 16\]"):
        convext.receptive_field(model, 16)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch._C._len_torch_dispatch_stack() == 0 and torch._C._len_torch_function_stack() == 0


def test_other_dtypes_and_compiled_models() -> None:
    model = networks.SqueezeExcitation()
    expected = convext.receptive_field(model, 32).rows
    for dtype in (torch.float64, torch.bfloat16):
        assert convext.receptive_field(copy.deepcopy(model).to(dtype), 32, verify=True)["after"].verified
        assert convext.receptive_field(copy.deepcopy(model).to(dtype), 32).rows == expected
    assert convext.receptive_field(torch.compile(model), 32).rows == expected


def test_control_flow_follows_the_run() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(4 if x.shape[-1] > 20 else 2):
                x = self.conv(x)
                if float(x.detach().sum()) > 1e30:
                    break
            return x

    assert convext.receptive_field(Deep(), 32)[""].size == (9, 9)
    assert convext.receptive_field(Deep(), 16)[""].size == (5, 5)


def test_inference_mode_within_the_model() -> None:
    """There, operators that are made of others reach the trace undivided."""

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            x = F.conv2d(x, torch.ones(4, 3, 3, 3), padding="same").reshape(len(x), 2, 2, 16, 16)
            x = F.max_pool2d(x.flatten(1, 2), 2)
            return torch.matmul(torch.ones(5, 4), x.flatten(2)).unflatten(2, (8, 8))

    report = convext.receptive_field(run, (3, 16, 16))
    assert [(row.name, row.size, row.note) for row in report] == [
        ("conv2d", (3, 3), ""),
        ("max_pool2d", (4, 4), ""),
        ("matmul", (4, 4), ""),
    ]
    assert report["matmul"].output_size == (8, 8) and report["matmul"].jump == (2, 2)


def test_models_that_are_not_quite_python() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2)).eval()
    exported = torch.export.export(model, (torch.rand(1, 3, 16, 16),)).module()
    report = convext.receptive_field(exported, (3, 16, 16), verify=True)
    assert report[""].size == (5, 5) and report[-1].verified
    normed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3)))
    report = convext.receptive_field(normed, 16, verify=True)
    assert [(row.name, row.size, row.verified) for row in report] == [("0", (3, 3), True), ("1", (5, 5), True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Conv2d(4, 4, 3))
    assert convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3), scripted), 16)[""].size == (5, 5)


def test_what_is_decided_by_values_is_taken_to_see_everything() -> None:
    def sampled(x: torch.Tensor) -> torch.Tensor:
        return F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False)

    def fixed(x: torch.Tensor) -> torch.Tensor:
        theta = torch.tensor([[[0.9, 0, 0.013], [0, 0.8, 0.017]]], dtype=x.dtype).expand(len(x), -1, -1)
        return F.grid_sample(x, F.affine_grid(theta, [len(x), 3, 8, 8], align_corners=True), align_corners=True)

    row = convext.receptive_field(sampled, (3, 16, 16))["grid_sample"]
    assert row.global_view and row.size == (16, 16) and "assumed" in row.note and not row.probed
    row = convext.receptive_field(fixed, (3, 15, 15), verify=True)["grid_sample"]
    assert row.probed and row.verified and row.size == (2, 2)
    dynamic = convext.receptive_field(lambda x: F.conv2d(x, x.mean((2, 3), keepdim=True)), (3, 16, 16))["conv2d"]
    assert dynamic.global_view and "assumed" in dynamic.note
    unpooled = convext.receptive_field(
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (3, 16, 16)
    )
    assert "assumed" in unpooled["max_unpool2d"].note


def test_an_unknown_operator_of_two_tensors() -> None:
    report = convext.receptive_field(lambda x: fused(x, F.avg_pool2d(x, 3, 1, 1)), (3, 16, 16), verify=True)
    row = report["fused"]
    assert row.probed and row.verified and (row.size, row.jump, row.note) == ((7, 7), (1, 1), "")


def test_a_failure_that_the_model_catches() -> None:
    class Trying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong, self.right = nn.Conv2d(9, 3, 3), nn.Conv2d(3, 3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x) + 1

    assert [(row.name, row.size) for row in convext.receptive_field(Trying(), (3, 16, 16))] == [("right", (5, 5))]


# Bad input.


@pytest.mark.parametrize(
    ("size", "error", "words"),
    [
        ("224", TypeError, "input_size must be an int or a sequence of ints, but it is '224'"),
        (None, TypeError, "input_size must be an int"),
        (True, TypeError, "input_size must be an int"),
        (32.0, TypeError, "input_size must be an int"),
        ((32, 32.0), TypeError, "input_size must hold ints"),
        ((3, True), TypeError, "input_size must hold ints"),
        ((32,), ValueError, r"\(N, C, H, W\), but it has 1 entries"),
        ((1, 2, 3, 4, 5), ValueError, "it has 5 entries"),
        (0, ValueError, "input_size must be positive, but it is 0"),
        ((3, -1, 8), ValueError, "input_size must be positive"),
        ((4, 8, 8), RuntimeError, r"does not run on an image of shape \[1, 4, 8, 8\]"),
        (1, RuntimeError, r"does not run on an image of shape \[1, 3, 1, 1\] \(channels as in its first convolution"),
    ],
)
def test_bad_sizes(size: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3)), size)


def test_bad_models() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module or a function, but it is a str"):
        convext.receptive_field("resnet50", 32)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"input_size must be \(C, H, W\), since the model has no convolution"):
        convext.receptive_field(nn.Sequential(nn.ReLU()), 32)


def test_types() -> None:
    report = convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3)), 8)
    assert isinstance(report, Report) and isinstance(report.rows[0], Row)
    assert not math.isnan(report.rows[0].jump[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convext.receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3)), 8, verify=True)


def test_examples_of_the_docs() -> None:
    file = Path(__file__).parents[1] / "docs" / "receptive_field.md"
    results = doctest.testfile(str(file), module_relative=False, encoding="utf-8")
    assert results.attempted > 5 and results.failed == 0
