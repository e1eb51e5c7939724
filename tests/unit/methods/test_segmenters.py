"""Networks that answer for every pixel, with an auxiliary head or several last layers, are pruned like all others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raypruning.methods import scores
from raypruning.methods.accounting import count_left
from raypruning.methods.method import UNCOUNTED, Samples
from raypruning.methods.paths import PathWalker
from raypruning.methods.prune import apply_masks
from raypruning.methods.selection import RATIO_TOLERANCE
from raypruning.models.heads import all_logits
from raypruning.models.layers import count_macs, prunable_layers
from raypruning.models.torchvision_import import import_torchvision
from raypruning.models.torchvision_segmenters import build

from .networks import kept, masks_of, network_of, num_params, num_removed

SqueezeExcitation = import_torchvision().ops.SqueezeExcitation

PX = 33
SHAPE = (1, 3, PX, PX)
NUM_CLASSES = 6
SEGMENTERS = ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50"]


def segmenter(name: str, *, seed: int = 0) -> nn.Module:
    """With norms that are not all alike, statistics of real activations, and no gate that is shut or wide open."""
    torch.manual_seed(seed)
    model = build(name, num_classes=NUM_CLASSES, in_channels=3, image_size=PX, options={})
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.5, 1.5)
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.constant_(module.fc1.bias, 5.0)
            nn.init.normal_(module.fc2.weight, std=0.01)
    return see_images(model)


@torch.no_grad()
def see_images(model: nn.Module) -> nn.Module:
    """Take the statistics of the norms anew, so that each of their channels is above 0 for one of `pictures`."""
    model.train()(pictures().images_NCHW)
    return model.eval()


def pictures(num: int = 4, *, seed: int = 1) -> Samples:
    """Noise with a class for each pixel; a tenth of the pixels has none, and of the last image only one has any."""
    generator = torch.Generator().manual_seed(seed)
    labels_NHW = torch.randint(NUM_CLASSES, (num, PX, PX), generator=generator)
    labels_NHW[torch.rand(labels_NHW.shape, generator=generator) < 0.1] = UNCOUNTED
    labels_NHW[-1].flatten()[1:] = UNCOUNTED
    return Samples(torch.randn(num, *SHAPE[1:], generator=generator), labels_NHW)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_what_masks_leave_without_purpose_is_what_computes_zeros_and_what_no_logit_depends_on(name):
    model = segmenter(name)
    layers = prunable_layers(model)
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for layer_name, layer in layers.items():
        num_out, num_in = layer.weight.shape[:2]
        rows_O1, columns_1I = torch.rand(num_out, 1, generator=generator), torch.rand(1, num_in, generator=generator)
        keep_OI = (rows_O1 < 0.7) & (columns_1I < 0.5)
        masks[f"{layer_name}.weight"] = keep_OI[:, :, None, None].expand(layer.weight.shape)
        if layer.bias is not None:
            masks[f"{layer_name}.bias"] = keep_OI.any(1)
    with PathWalker(model, torch.zeros(SHAPE)) as walker:
        dead = walker.dead(masks)
    norms = {f"{norm}.{part}": ~dead_C for norm, dead_C in dead.norms.items() for part in ("weight", "bias")}
    apply_masks(model, {**masks, **norms})
    see_images(model)

    given: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def watch(layer_name: str, inputs: Tensor, output: Tensor) -> None:
        given[layer_name] = inputs
        output.register_hook(lambda gradient: gradients.update({layer_name: gradient}))

    for layer_name, layer in layers.items():
        layer.register_forward_hook(
            lambda _layer, inputs, output, layer_name=layer_name: watch(layer_name, inputs[0].detach(), output)
        )
    logits = all_logits(model, pictures().images_NCHW)
    sum((one * torch.randn_like(one)).sum() for one in logits).backward()

    assert any(dead_I.any() for dead_I in dead.inputs.values())
    assert any(dead_C.any() for dead_C in dead.norms.values())
    for layer_name in layers:
        mask_OI = masks[f"{layer_name}.weight"].flatten(2).any(2)
        arrives_I = given[layer_name].ne(0).transpose(0, 1).flatten(1).any(1)
        is_read_O = gradients[layer_name].ne(0).transpose(0, 1).flatten(1).any(1)
        # Filters that have something to say, and channels that are listened to: of others it does not matter.
        speaks_O = (mask_OI & arrives_I).any(1)
        listens_I = mask_OI[is_read_O].any(0)
        assert torch.equal(dead.outputs[layer_name][speaks_O], ~is_read_O[speaks_O]), layer_name
        assert torch.equal(dead.inputs[layer_name][listens_I], ~arrives_I[listens_I]), layer_name


def test_all_multiply_adds_of_a_whole_segmenter_are_on_paths_those_of_its_auxiliary_head_included():
    model = segmenter("deeplabv3_mobilenet_v3_large")
    nothing_removed = {"classifier.4.bias": torch.ones(NUM_CLASSES, dtype=torch.bool)}
    left = count_left(model, nothing_removed, torch.zeros(SHAPE))
    assert left.num_nonzero == left.num_params == num_params(model)
    assert left.macs_on_paths == left.macs == left.macs_dense == count_macs(model, 3, PX)
    assert left.dead_layers == ()


@pytest.mark.parametrize("method", ["wt", "ft", "sipp", "snip", pytest.param("pfp", marks=pytest.mark.slow)])
def test_masks_reach_the_ratio_whatever_the_method(method):
    model = segmenter("lraspp_mobilenet_v3_large")
    masks = masks_of(method, model, 0.5, shape=SHAPE, samples=pictures())
    assert num_removed(masks) / num_params(model) == pytest.approx(0.5, abs=RATIO_TOLERANCE)


class TwoHeads(nn.Module):
    """Small, with an auxiliary head, whose logits only training wants."""

    logit_layers = ("head", "auxiliary")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 40, 3, padding=1)
        self.deep = nn.Conv2d(40, 40, 1)
        self.head = nn.Conv2d(40, NUM_CLASSES, 1)
        self.before_auxiliary = nn.Conv2d(40, 20, 1)
        self.auxiliary = nn.Conv2d(20, NUM_CLASSES, 1)

    def forward(self, images_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        logits = self.all_logits(images_NCHW)
        return logits if self.training else logits[0]

    def all_logits(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        maps = self.stem(images_NCHW).relu()
        return self.head(self.deep(maps).relu()), self.auxiliary(self.before_auxiliary(maps).relu())


def two_heads() -> nn.Module:
    torch.manual_seed(0)
    return TwoHeads().eval()


def test_filters_go_from_all_layers_but_those_whose_outputs_are_classes():
    model = two_heads()
    found = kept(masks_of("ft", model, 0.4, shape=SHAPE), model)
    is_whole = {name: bool(mask.flatten(1).any(1).all()) for name, mask in found.items()}
    assert {name for name, whole in is_whole.items() if whole} == {"head", "auxiliary"}


def test_channels_of_an_auxiliary_head_go_along_as_those_of_any_other_layer():
    model = two_heads()
    masks = masks_of("ft", model, 0.4, shape=SHAPE)
    keep_O = masks["before_auxiliary.weight"].flatten(1).any(1)
    assert not keep_O.all()
    assert torch.equal(masks["before_auxiliary.bias"], keep_O)
    assert torch.equal(masks["auxiliary.weight"].flatten(2).any(2), keep_O.expand(NUM_CLASSES, -1))


# --- By gradients ---------------------------------------------------------------------------------------------------


def saliency_by_hand(model: nn.Module, samples: Samples) -> dict[str, Tensor]:
    """|w * gradient of the mean over images of the mean over pixels|, half of the auxiliary head's added."""
    losses = []
    for image_CHW, labels_HW in zip(samples.images_NCHW, samples.labels_N, strict=True):
        main_CHW, auxiliary_CHW = (logits[0] for logits in model.all_logits(image_CHW[None]))
        places = (labels_HW != UNCOUNTED).nonzero().tolist()
        of_pixels = [
            -sum(
                share * logits_CHW[:, y, x].log_softmax(0)[labels_HW[y, x]]
                for share, logits_CHW in ((1.0, main_CHW), (0.5, auxiliary_CHW))
            )
            for y, x in places
        ]
        losses.append(torch.stack(of_pixels).mean())
    weights = {name: layer.weight for name, layer in prunable_layers(model).items()}
    gradients = torch.autograd.grad(torch.stack(losses).mean(), list(weights.values()))
    return {
        name: (weight.detach() * gradient).abs()
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }


def test_gradient_saliency_is_that_of_the_mean_over_images_of_their_pixels_and_of_both_heads():
    model, samples = two_heads().double(), pictures()
    samples = Samples(samples.images_NCHW.double()[..., :7, :7], samples.labels_N[..., :7, :7])
    expected = saliency_by_hand(model, samples)
    for name, score in scores.gradient_saliency(network_of(model, SHAPE, samples=samples)).items():
        # The scores are float32, of sums with both signs: half a digit less than its seven, of the layer's largest.
        torch.testing.assert_close(score.double(), expected[name], rtol=1e-5, atol=1e-6 * float(expected[name].max()))


def test_gradient_saliency_of_large_images_is_the_same_with_fewer_at_once(monkeypatch):
    model, samples = two_heads(), pictures(num=5)
    together = scores.gradient_saliency(network_of(model, SHAPE, samples=samples))
    monkeypatch.setattr(scores, "GRADIENT_PIXELS", 2 * PX**2)
    for name, score in scores.gradient_saliency(network_of(model, SHAPE, samples=samples)).items():
        torch.testing.assert_close(score, together[name], rtol=1e-4, atol=1e-6 * float(score.max()))


def test_paper_rules_remove_what_the_loss_of_both_heads_does_not_feel_and_nothing_else():
    """The second filter of the stem is silent; all others reach a logit."""
    model = two_heads()
    with torch.no_grad():
        model.stem.weight[1], model.stem.bias[1] = 0.1, -100.0
    asked = 0.3
    masks = masks_of("wt", model, asked, shape=SHAPE, samples=pictures(num=8), rules="paper")
    assert num_removed(masks) / num_params(model) == pytest.approx(asked, abs=0.05)
    found = kept(masks, model)
    assert not found["stem"][1].any()
    assert not found["deep"][:, 1].any()
    for name in ("before_auxiliary", "auxiliary"):
        # By magnitude, a third of all weights: not all of a head that evaluation makes no use of.
        assert float(found[name].float().mean()) > 0.3


def test_paper_rules_take_samples_without_any_class_for_ones_that_teach_nothing():
    model, samples = two_heads(), pictures(num=8)
    nothing = Samples(torch.randn(4, *SHAPE[1:]), torch.full((4, PX, PX), UNCOUNTED))
    both = Samples(*(torch.cat(pair) for pair in zip(samples, nothing, strict=True)))
    one, other = (masks_of("wt", model, 0.3, shape=SHAPE, samples=own, rules="paper") for own in (samples, both))
    assert one.keys() == other.keys()
    assert all(torch.equal(mask, other[name]) for name, mask in one.items())


def test_labels_of_images_give_the_saliency_of_torchs_summed_loss_to_the_bit():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    samples = Samples(pictures(num=6).images_NCHW, torch.arange(6) % 3)
    F.cross_entropy(model(samples.images_NCHW), samples.labels_N, reduction="sum").backward()
    for name, score in scores.gradient_saliency(network_of(model, SHAPE, samples=samples)).items():
        layer = prunable_layers(model)[name]
        assert torch.equal(score, (layer.weight.detach() * layer.weight.grad / 6).abs())
