"""What the layers of a network make of an image: feature maps as tensors and as one figure.

`capture` runs the model and collects, `figure` draws.
"""

from __future__ import annotations

from convext.feature_maps.capture import FeatureMaps, feature_maps

__all__ = ["FeatureMaps", "feature_maps"]
