"""Networks under noise against a loop over images, and the draws themselves."""

# N images, L noise levels, P pairs

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypruning.errors import MethodError
from raypruning.inspection.cka import CkaSums
from raypruning.inspection.noise_similarity import MAX_DRAWS, batch_likeness, noise_draws
from raypruning.inspection.penultimate import tapped
from raypruning.models.resolve import build_model
from raypruning.tasks.task import resolve_task

AMPLITUDES = (0.0, 0.3, 0.7)
PAIRS = [(0, 1), (0, 2), (1, 2), (0, 0)]


def tiny(seed: int) -> nn.Module:
    """A small classifier in double precision, so that the same sums in another order give the same classes."""
    torch.manual_seed(seed)
    layers = (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6), nn.ReLU(), nn.Linear(6, 5))
    return nn.Sequential(*layers).double().eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(23, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def networks() -> list[nn.Module]:
    return [tiny(seed) for seed in range(3)]


def likeness(
    networks: list[nn.Module],
    images: Tensor,
    *,
    batch_size: int = 23,
    num_draws: int = 2,
    amplitudes: tuple[float, ...] = AMPLITUDES,
    cka: CkaSums | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Of all images, (L, P, N) each."""
    ids = torch.arange(100, 100 + len(images))
    batches = zip(images.split(batch_size), ids.split(batch_size), strict=True)
    found = list(batch_likeness(networks, PAIRS, batches, amplitudes=amplitudes, num_draws=num_draws, cka=cka))
    return (
        np.concatenate([one.matching_LPB for one in found], axis=2),
        np.concatenate([one.distance_LPB for one in found], axis=2),
    )


def test_likeness_is_that_of_a_loop_over_images_levels_and_draws(networks: list[nn.Module], images: Tensor):
    num_draws = 3
    matching_LPN, distance_LPN = likeness(networks, images, batch_size=7, num_draws=num_draws)
    for n, image in enumerate(images):
        for level, amplitude in enumerate(AMPLITUDES):
            same, apart = np.zeros(len(PAIRS)), np.zeros(len(PAIRS))
            for draw in range(num_draws):
                noise = noise_draws(image[None], torch.tensor([100 + n]), draw=draw)
                logits = [network(image[None] + amplitude * noise)[0].numpy() for network in networks]
                probabilities = [np.exp(one) / np.exp(one).sum() for one in logits]
                for index, (a, b) in enumerate(PAIRS):
                    same[index] += logits[a].argmax() == logits[b].argmax()
                    apart[index] += np.sqrt(((probabilities[a] - probabilities[b]) ** 2).sum())
            assert matching_LPN[level, :, n] == pytest.approx(same / num_draws)
            # Softmax and its sums are in single precision: 24 bits of numbers up to 1, some ten of them.
            assert distance_LPN[level, :, n] == pytest.approx(apart / num_draws, abs=2e-6)


def test_network_is_like_itself_under_any_noise(networks: list[nn.Module], images: Tensor):
    matching_LPN, distance_LPN = likeness(networks, images)
    assert (matching_LPN[:, 3] == 1.0).all() and (distance_LPN[:, 3] == 0.0).all()


@pytest.mark.parametrize("batch_size", [1, 5, 22])
def test_likeness_does_not_depend_on_the_size_of_batches(networks: list[nn.Module], images: Tensor, batch_size: int):
    whole, parts = likeness(networks, images), likeness(networks, images, batch_size=batch_size)
    assert (whole[0] == parts[0]).all()
    assert whole[1] == pytest.approx(parts[1], abs=2e-6)  # see above


def test_likeness_at_a_level_does_not_depend_on_the_other_levels(networks: list[nn.Module], images: Tensor):
    every, alone = likeness(networks, images), likeness(networks, images, amplitudes=(0.7,))
    assert (every[0][2:] == alone[0]).all() and (every[1][2:] == alone[1]).all()


def test_every_level_and_network_sees_the_same_draw_times_the_amplitude(images: Tensor):
    seen: list[list[Tensor]] = [[], []]

    class Recorder(nn.Module):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

        def forward(self, images_BCHW: Tensor) -> Tensor:
            seen[self.place].append(images_BCHW.clone())
            return images_BCHW.flatten(1)[:, :3]

    # In units of 2^-24, as the draws are, and amplitudes that are powers of two: every sum is exact.
    whole = (images * 64).round() / 64
    batches = [(whole, torch.arange(len(whole)))]
    recorders = [Recorder(0), Recorder(1)]
    list(batch_likeness(recorders, [(0, 1)], batches, amplitudes=(0.0, 0.25, 0.5), num_draws=2))
    nominal, *noisy = seen[0]
    draws = [noise_draws(whole, torch.arange(len(whole)), draw=draw) for draw in (0, 1)]
    expected = [amplitude * draw for draw in draws for amplitude in (0.25, 0.5)]
    assert torch.equal(nominal, whole) and len(noisy) == 4
    for one, noise in zip(noisy, expected, strict=True):
        assert torch.equal(one - whole, noise.double())
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def test_first_draw_is_that_of_the_noise_tasks(images: Tensor):
    ids = torch.arange(len(images)) + 7
    task = resolve_task("noise/uniform/0.5")
    assert task.on_normalised is not None
    assert torch.equal(task.on_normalised(images, ids), images + 0.5 * noise_draws(images, ids, draw=0))


def test_draws_are_uniform_and_have_nothing_to_do_with_each_other():
    images, ids = torch.zeros(300, 1, 16, 16), torch.arange(300)
    draws = np.stack([noise_draws(images, ids, draw=draw).flatten().numpy() for draw in (0, 1, 2, MAX_DRAWS - 1)])
    num = draws.shape[1]
    # Five standard errors: of a mean, sqrt(1 / 3 / num); of a mean square, sqrt(4 / 45 / num); of a correlation,
    # sqrt(1 / num).
    assert np.abs(draws.mean(1)).max() < 5 * np.sqrt(1 / 3 / num)
    assert np.abs((draws**2).mean(1) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / num)
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 5 / np.sqrt(num)
    assert draws.min() >= -1 and draws.max() <= 1


def test_features_are_taken_without_noise_and_once(networks: list[nn.Module], images: Tensor):
    sums = CkaSums([(0, 1)])
    likeness(networks, images, batch_size=6, num_draws=3, cka=sums)
    expected = CkaSums([(0, 1)])
    expected.add([network[:-1](images) for network in networks])
    # Double precision throughout: 23 images, features of some 1.
    assert sums.values_P() == pytest.approx(expected.values_P(), abs=1e-12)


# -- the layer before the last -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "size", "layer", "width"),
    [
        ("lenet5", 28, "fc2", 50),
        ("mlp", 28, "fc5", 200),
        ("resnet20", 32, "head", 64),
        ("torchvision/squeezenet1_1", 32, "classifier.1", 512),  # a convolution gives its classes
        ("torchvision/vit_b_32", 32, "heads.head", 768),
    ],
)
def test_features_give_the_logits_by_the_last_layer(model: str, size: int, layer: str, width: int):
    torch.manual_seed(0)
    network = build_model(model, num_classes=10, in_channels=3, image_size=size, options={}).eval()
    images = torch.randn(4, 3, size, size)
    with torch.no_grad(), tapped([network]) as (tap,):
        logits = network(images)
        features = tap.features_BD()
        assert tap.layer == layer and features.shape == (4, width)
        if layer != "classifier.1":  # whose outputs pass a ReLU before they are averaged
            # Single precision, of up to 768 products of some 1.
            assert torch.allclose(network.get_submodule(layer)(features), logits, atol=1e-4)


def test_taps_are_gone_afterwards(networks: list[nn.Module], images: Tensor):
    before = copy.deepcopy(networks[0]._modules["5"]._forward_pre_hooks)
    with tapped(networks):
        assert networks[0]._modules["5"]._forward_pre_hooks != before
    assert networks[0]._modules["5"]._forward_pre_hooks == before


def test_layer_that_is_never_called_is_told():
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) @ self.fc.weight.T

    network = Detached()
    with tapped([network]) as (tap,):
        network(torch.zeros(2, 1, 2, 2))
        with pytest.raises(MethodError, match="fc is never called"):
            tap.features_BD()
