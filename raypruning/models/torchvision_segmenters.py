"""Torchvision's networks for segmentation, which give every pixel of an image its logits.

Weights start as torchvision draws them; see `first_convolution` for one that is replaced.
"""

# N images, C channels or classes, H W height and width

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import interpolate

from raypruning.errors import UnknownNameError, unknown_name_message
from raypruning.models.base import read_options
from raypruning.models.first_convolution import replace_first_convolution
from raypruning.models.pretrained import cached_weights, load_state, load_weights, read_state
from raypruning.models.torchvision_import import import_torchvision
from raypruning.models.torchvision_names import TORCHVISION_SEGMENTERS

# ImageNet's weights of the study, and what torchvision's own segmenters began with.
BACKBONE_VERSION = "IMAGENET1K_V1"
# What a classifier has behind the part that is a backbone.
CLASSIFIER_PREFIXES = ("fc.", "classifier.")


class Segmenter(nn.Module):
    """One of torchvision's segmenters that answers with tensors in place of a dictionary. State dicts are the same.

    Attributes:
        logit_layers: see `heads.HasHeads`.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Module, aux_classifier: nn.Module | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier
        self.logit_layers = (
            ("classifier.low_classifier", "classifier.high_classifier")
            if aux_classifier is None
            else ("classifier.4", "aux_classifier.4")
        )

    def forward(self, images_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits (N, classes, H, W); in training mode, with those of an auxiliary head if there is one.

        That head also runs when its logits are not wanted, as in torchvision: so its multiply-adds count, and what
        goes into its layers can be seen.
        """
        logits = self.all_logits(images_NCHW)
        return logits if self.training and len(logits) > 1 else logits[0]

    def all_logits(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        """See `heads.HasHeads`; each (N, classes, H, W)."""
        maps = self.backbone(images_NCHW)
        if self.aux_classifier is None:
            logits = [self.classifier(maps)]
        else:
            logits = [self.classifier(maps["out"]), self.aux_classifier(maps["aux"])]
        size = images_NCHW.shape[-2:]
        return tuple(interpolate(one, size=size, mode="bilinear", align_corners=False) for one in logits)


def build(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Torchvision's segmenter called `argument`, with its auxiliary head unless it is lraspp, which has none.

    Options:
        weights: "" for random ones; "backbone" for ImageNet's in the backbone, and random heads; "cache" for
            torchvision's default ones; both must be in torch's local cache already (nothing is downloaded); or the
            path of a .safetensors, .pt or .pth file with a state dict. Heads of another number of classes are left
            random; everything else must fit.

    Args:
        argument: one of `TORCHVISION_SEGMENTERS`.
        num_classes: logits per pixel.
        in_channels: channels of an image.
        image_size: not needed, images of any size fit.
        options: see above.

    Raises:
        UnknownNameError: torchvision has no such segmenter.
        SpecError: an option or a weights file that the segmenter does not take.

    Source: Lost in Pruning, section 4 and appendix, for deeplabv3_resnet50 with auxiliary head and ImageNet's backbone.
    """
    if argument not in TORCHVISION_SEGMENTERS:
        raise UnknownNameError(unknown_name_message("torchvision segmenter", argument, TORCHVISION_SEGMENTERS))
    weights = str(read_options(argument, options, {"weights": ""})["weights"])
    # Found before the network is built: a missing file should cost no waiting.
    path = _find_weights(argument, weights)
    auxiliary = {} if argument.startswith("lraspp_") else {"aux_loss": True}
    network = import_torchvision().models.get_model(
        argument, weights=None, weights_backbone=None, num_classes=num_classes, **auxiliary
    )
    model = Segmenter(network.backbone, network.classifier, getattr(network, "aux_classifier", None))
    if in_channels != 3:
        replace_first_convolution(model, in_channels=in_channels)
    if path is not None and weights == "backbone":
        _load_backbone(model, path)
    elif path is not None:
        heads = frozenset(f"{name}.{part}" for name in model.logit_layers for part in ("weight", "bias"))
        load_weights(model, path, head=heads)
    return model


def _find_weights(name: str, weights: str) -> Path | None:
    if weights == "backbone":
        return cached_weights(name.partition("_")[2], version=BACKBONE_VERSION)
    if weights == "cache":
        return cached_weights(name)
    return Path(weights) if weights else None


def _load_backbone(model: Segmenter, path: Path) -> None:
    # MobileNet's layers are numbered within its `features`, of which the backbone is made.
    found = {
        key.removeprefix("features."): value
        for key, value in read_state(path).items()
        if not key.startswith(CLASSIFIER_PREFIXES)
    }
    load_state(model.backbone, found, path)
