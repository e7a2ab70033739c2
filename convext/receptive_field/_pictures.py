"""The picture of a unit: its rectangle on a photograph, and how much each pixel matters to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convext.receptive_field.report import Rectangle, Report

_EXACT, _UNCLIPPED = "#e4572e", "#2e86ab"


def as_photo(image: Any, size: tuple[int, int]) -> torch.Tensor:
    """A photograph as float32 ``(H, W, 3)`` in 0..1, resized; what it may be is said in `Report.draw`."""
    if not isinstance(image, torch.Tensor):
        if hasattr(image, "convert"):  # a PIL image
            image = image.convert("RGB")
        try:
            import numpy

            image = torch.from_numpy(numpy.array(image))
        except (TypeError, ValueError):
            raise TypeError(
                f"draw(): image must be a tensor, an array or a PIL image, but it is a {type(image).__name__}"
            ) from None
    given = tuple(image.shape)
    if image.dim() == 4 and image.shape[0] == 1:
        image = image[0]
    if image.dim() == 2:
        image = image[None]
    elif image.dim() == 3 and image.shape[0] not in (1, 3, 4) and image.shape[-1] in (1, 3, 4):
        image = image.movedim(-1, 0)
    if image.dim() != 3 or image.shape[0] not in (1, 3, 4) or not image.numel():
        raise ValueError(
            f"draw(): image must have shape (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels, but it has {given}"
        )
    photo = image.detach().cpu()
    photo = photo.float() / 255 if not photo.is_floating_point() or float(photo.max()) > 1.5 else photo.float()
    photo = photo[:3].expand(3, -1, -1)[None]
    photo = F.interpolate(photo, size=size, mode="bilinear", align_corners=False, antialias=True)
    return photo[0].movedim(0, -1).clamp(0, 1)


def draw(report: Report, name: str, unit: tuple[int, int] | None, image: Any, effective: bool, samples: int) -> Figure:
    """See `Report.draw`."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle as Patch
    except ImportError as error:
        raise ImportError('draw() needs matplotlib: pip install "convext[plot]"') from error

    seen = report.unit(name, unit)
    height, width = report.input_size
    photo = torch.full((height, width, 3), 0.8) if image is None else as_photo(image, report.input_size)
    field = report.effective_field(name, unit, samples=samples) if effective else None

    figure = Figure(figsize=(10.5 if effective else 5.5, 5.6), layout="constrained")
    panels = figure.subplots(1, 2 if effective else 1, squeeze=False)[0]

    def outline(axes: Any, rectangle: Rectangle, color: str, style: str, label: str) -> None:
        # Pixel i covers the interval from i - 1/2 to i + 1/2.
        corner = (rectangle.left - 0.5, rectangle.top - 0.5)
        rows, columns = rectangle.size
        thin: dict[str, Any] = {"edgecolor": color, "linestyle": style, "linewidth": 1.8, "label": label, "zorder": 4}
        for looks in ({"edgecolor": "white", "linewidth": 3.5, "alpha": 0.7, "zorder": 3}, thin):
            axes.add_patch(Patch(corner, columns, rows, fill=False, **looks))

    def dress(axes: Any) -> None:
        rows, columns = seen.rectangle.size
        if seen.unclipped != seen.rectangle:
            size = "{} x {}".format(*seen.unclipped.size)
            label = "on local paths" if seen.global_view else "without borders"
            outline(axes, seen.unclipped, _UNCLIPPED, "--", f"{label}: {size}")
        outline(axes, seen.rectangle, _EXACT, "-", f"seen: {rows} x {columns}")
        both = (seen.unclipped, seen.rectangle)
        margin = 0.03 * max(height, width)
        axes.set_xlim(min(0, *(r.left for r in both)) - margin, max(width, *(r.right for r in both)) - 1 + margin)
        axes.set_ylim(max(height, *(r.bottom for r in both)) - 1 + margin, min(0, *(r.top for r in both)) - margin)
        axes.set_xlabel("column")
        axes.set_ylabel("row")

    panels[0].imshow(photo.numpy(), interpolation="nearest", zorder=1)
    dress(panels[0])
    panels[0].set_title(f"unit {seen.index} of {name}" + (", global view" if seen.global_view else ""))
    panels[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=9, ncols=2, frameon=False)
    if field is not None:
        panels[1].imshow(photo.mean(-1).numpy(), cmap="gray", vmin=-1, vmax=1.4, interpolation="nearest", zorder=1)
        peak = float(field.max())
        share = (field / peak if peak else field).float()
        shown = panels[1].imshow(
            share.numpy(), cmap="inferno", vmin=0, vmax=1, alpha=(share.sqrt() * 0.95).numpy(), zorder=2
        )
        dress(panels[1])
        panels[1].set_title("effective field: mean absolute gradient")
        bar = figure.colorbar(shown, ax=panels[1], shrink=0.7)
        bar.set_label("share of the largest")
    return figure
