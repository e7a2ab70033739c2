"""Feature maps: which are kept, that the model and the image stay as they were, and what the figure shows."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convext


def _network() -> nn.Sequential:
    return nn.Sequential(
        convext.Conv2D(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.Dropout(0.5), nn.Conv2d(6, 20, 3, stride=2)),
    )


def test_the_maps_are_what_the_layers_return_in_eval_mode() -> None:
    model, image = _network(), torch.randn(2, 3, 12, 14)
    maps = convext.feature_maps(model, image)
    assert list(maps) == ["0", "3.0", "3.2"] and len(maps) == 3
    model.eval()
    with torch.no_grad():
        first = model[0](image)
        second = model[3][0](model[1](first).relu())
        third = model[3][2](second)
    for name, wanted in {"0": first, "3.0": second, "3.2": third}.items():
        assert torch.equal(maps[name], wanted) and not maps[name].requires_grad
    with torch.no_grad():  # the ReLU that follows works in place
        assert torch.equal(convext.feature_maps(model, image, "1")["1"], model[1](first))
    assert torch.equal(maps.image, image)
    assert torch.equal(maps.kernels["0"], model[0].weight)
    assert "3.2  (2, 20, 4, 5)" in repr(maps)


@pytest.mark.parametrize("shape", [(9, 10), (1, 9, 10), (2, 1, 9, 10)])
def test_images_of_every_rank(shape: tuple[int, ...]) -> None:
    layer, image = convext.Conv2D(1, 2, 3), torch.randn(shape)
    maps = convext.feature_maps(layer, image)
    torch.testing.assert_close(maps["Conv2D"], F.conv2d(image.reshape(-1, 1, 9, 10), layer.weight, layer.bias))
    assert maps.image.shape == (shape[0] if len(shape) == 4 else 1, 1, 9, 10)


def test_layers_by_name_and_pattern() -> None:
    model, image = _network(), torch.randn(3, 8, 8)
    assert list(convext.feature_maps(model, image, layers="3.*")) == ["3.0", "3.1", "3.2"]
    assert list(convext.feature_maps(model, image, layers=["3.2", "?"])) == ["0", "1", "2", "3.2", "3"]
    assert list(convext.feature_maps(model, image, ["2", "2"])) == ["2"]
    assert convext.feature_maps(model, image, ["2"]).kernels == {}


class _Repeats(nn.Module):
    """Runs its layers in another order than it has them, and one of them three times."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 1, 1)
        self.conv = convext.Conv2D(2, 2, 3, padding=1)
        self.unused = nn.Conv2d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(self.conv(self.conv(x))))


def test_order_of_execution_and_repeated_calls() -> None:
    model, image = _Repeats(), torch.randn(2, 6, 6)
    maps = convext.feature_maps(model, image)
    assert list(maps) == ["conv", "conv#2", "conv#3", "last"]
    with torch.no_grad():
        assert torch.equal(maps["conv#2"], model.conv(model.conv(maps.image)))
    with pytest.raises(RuntimeError, match="none of the layers \\['unused'\\] runs"):
        convext.feature_maps(model, image, "unused")


class _Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = convext.Conv2D(1, 1, 3)
        self.frozen = nn.BatchNorm2d(1).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.conv(x)
        raise ArithmeticError("on purpose")


def test_flags_hooks_and_statistics_are_restored() -> None:
    model, image = _network(), torch.randn(2, 3, 9, 9, requires_grad=True)
    model[3].eval()
    before = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    convext.feature_maps(model, image)
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert calls == [1] and sum(len(module._forward_hooks) for module in model.modules()) == 1

    raising = _Raises()
    with pytest.raises(ArithmeticError):
        convext.feature_maps(raising, torch.ones(4, 4))
    assert [module.training for module in raising.modules()] == [True, True, False]
    assert not any(module._forward_hooks for module in raising.modules())
    assert torch.is_grad_enabled()


def test_the_image_is_neither_changed_nor_kept() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), convext.Conv2D(1, 1, 3))
    image = torch.randn(5, 5)
    before = image.clone()
    maps = convext.feature_maps(model, image)
    assert torch.equal(image, before) and torch.equal(maps.image[0, 0], before)
    reference, storage = weakref.ref(image), image.data_ptr()
    assert maps.image.data_ptr() != storage
    del image
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: convext.feature_maps("model", x), TypeError, "model must be an nn.Module, but it is a str"),
        (lambda m, x: convext.feature_maps(m, [1]), TypeError, "image must be a Tensor, but it is a list"),
        (lambda m, x: convext.feature_maps(m, x[0, 0]), RuntimeError, r"image must be .*shape \(8,\)"),
        (lambda m, x: convext.feature_maps(m, x, "3.3"), ValueError, "none is '3.3'; the closest are '3.*'"),
        (lambda m, x: convext.feature_maps(m, x, "nowhere*"), ValueError, "none is 'nowhere\\*'; there are"),
        (lambda m, x: convext.feature_maps(m, x, [3]), TypeError, r"a name or a sequence of names, but it is \[3\]"),
        (lambda m, x: convext.feature_maps(m, x, []), ValueError, "at least one layer"),
        (lambda m, x: convext.feature_maps(nn.ReLU(), x), ValueError, "has no nn.Conv2d"),
        (lambda m, x: convext.feature_maps(nn.Flatten(), x, "Flatten"), RuntimeError, r"'Flatten' returns \(1, 192\)"),
        (lambda m, x: convext.feature_maps(m, x).draw("4"), ValueError, "none is '4'"),
        (lambda m, x: convext.feature_maps(m, x).draw(scale="log"), ValueError, "scale must be"),
        (lambda m, x: convext.feature_maps(m, x).draw(max_channels=0), ValueError, "max_channels must be at least 1"),
        (lambda m, x: convext.feature_maps(m, x).draw(max_channels=2.0), TypeError, "max_channels must be an int"),
        (lambda m, x: convext.feature_maps(m, x).draw(image_index=1), IndexError, "batch size, 1, but it is 1"),
        (lambda m, x: convext.feature_maps(m, x)["7"], KeyError, "no feature maps of '7'"),
    ],
)
def test_bad_arguments_get_a_sentence(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(_network(), torch.randn(3, 8, 8))


def _titles(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_the_figure() -> None:
    pytest.importorskip("matplotlib")
    maps = convext.feature_maps(_network(), torch.rand(2, 3, 12, 14))
    figure = maps.draw(max_channels=5, image_index=1)
    assert _titles(figure) == [
        "image   12 x 14 x 3 channels",
        "0   4 kernels   3 x 3, in colour: zero is grey",
        "0   4 channels   12 x 14",
        "3.0   channels 0 to 4 of 6   10 x 12",
        "3.2   channels 0 to 4 of 20   4 x 5",
    ]
    blocks = {axes.get_title(loc="left"): axes for axes in figure.axes}
    shown = blocks["3.2   channels 0 to 4 of 20   4 x 5"].images
    for channel, picture in enumerate(shown):
        assert torch.equal(torch.from_numpy(picture.get_array().data), maps["3.2"][1, channel])
        limits = (maps["3.2"][1, :5].min().item(), maps["3.2"][1, :5].max().item())
        assert picture.get_clim() == pytest.approx(limits)
    assert len(figure.axes) == 5 + 3  # a colour bar for each layer
    figure.canvas.draw()

    each = maps.draw("3.2", scale="each", kernels=False)
    assert len(each.axes) == 2  # no colour bars
    for channel, picture in enumerate(each.axes[1].images):
        own = maps["3.2"][0, channel]
        assert picture.get_clim() == pytest.approx((own.min().item(), own.max().item()))


@pytest.mark.parametrize("channels", [1, 2, 3, 9, 40, 200])
def test_blocks_keep_apart_at_any_number_of_channels(channels: int) -> None:
    pytest.importorskip("matplotlib")
    model = nn.Sequential(convext.Conv2D(2, channels, (3, 1)), nn.AdaptiveAvgPool2d(1))
    maps = convext.feature_maps(model, torch.randn(2, 9, 40), layers=["0", "1"])
    figure = maps.draw(max_channels=256)
    titled = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert "channel 0 of 2" in _titles(figure)[1]
    positions = [axes.get_position() for axes in titled]
    assert all(0 <= p.x0 < p.x1 <= 1 and 0 <= p.y0 < p.y1 <= 1 for p in positions)
    assert all(above.y0 > below.y1 for above, below in pairwise(positions[1:]))
    for axes in titled:
        extents = [picture.get_extent() for picture in axes.images]
        right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
        assert all(-1e-9 < x0 < x1 < right + 1e-9 and -1e-9 < y0 < y1 < bottom + 1e-9 for x0, x1, y1, y0 in extents)
        assert len({(round(x0, 6), round(y0, 6)) for x0, _, _, y0 in extents}) == len(extents)
        width = min(x1 - x0 for x0, x1, _, _ in extents)
        assert width > 0.2  # inches


class _Hard(nn.Module):
    """Constant maps, maps with NaN and infinity, maps without any finite number."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.zeros(1, 4, 5, 5, dtype=self.dtype)
        maps[0, 1, 2, 2:4] = torch.tensor([torch.nan, torch.inf]).to(self.dtype)
        maps[0, 2] = torch.nan
        maps[0, 3, 1] = 2
        return maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("scale", ["shared", "each"])
def test_maps_that_are_hard_to_draw(dtype: torch.dtype, scale: str) -> None:
    pytest.importorskip("matplotlib")
    image = torch.full((6, 6), 300.0)
    image[2, 2] = torch.nan
    figure = convext.feature_maps(_Hard(dtype), image, "_Hard").draw(scale=scale)
    figure.canvas.draw()
    limits = [picture.get_clim() for picture in figure.axes[1].images]
    assert limits[3] == (0, 2) and limits[1] == ((0, 2) if scale == "shared" else (-0.5, 0.5))
    assert figure.axes[0].get_title(loc="left") == "image   6 x 6, rescaled"


def test_without_matplotlib_there_is_a_sentence() -> None:
    code = (
        "import sys, torch, convext\n"
        "sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "maps = convext.feature_maps(convext.Conv2D(1, 1, 1), torch.ones(2, 2))\n"
        "try: maps.draw()\n"
        "except ImportError as error: print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == 'draw(): matplotlib is needed and not installed: pip install "convext[plot]"\n'
