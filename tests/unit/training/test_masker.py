"""The images that scores look at: how many, of which split, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raypruning.core.records import Mask, MethodChoice
from raypruning.training.inputs import Normalisation
from raypruning.training.masker import make_masker, prune

from .test_loop import SIDE, images, network

CPU = torch.device("cpu")
EXAMPLE = torch.zeros(1, 3, SIDE, SIDE)
IDENTITY = Normalisation(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))


def masker_of(*, method: str = "sipp", num_images: int = 40, share: float = 0.5, seed: int = 0, **parameters):
    return make_masker(
        Mask(method=MethodChoice(name=method, parameters=parameters), ratio=0.5),
        network(),
        example_NCHW=EXAMPLE,
        images=images(num_images, seed=0),
        share=share,
        normalise=IDENTITY,
        batch_size=7,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("asked", "num_images", "share", "expected"),
    [(12, 40, 0.5, 12), (30, 40, 0.5, 20), (30, 40, 1.0, 30), (30, 20, 1.0, 20), (30, 3, 0.5, 2), (30, 41, 0.5, 20)],
)
def test_as_many_images_are_drawn_as_asked_and_as_the_share_allows(asked, num_images, share, expected):
    samples = masker_of(samples=asked, num_images=num_images, share=share).samples
    assert len(samples.images_NCHW) == len(samples.labels_N) == expected


def test_a_method_that_looks_at_weights_alone_draws_nothing():
    assert masker_of(method="wt").samples is None


def test_images_are_drawn_without_repetition_with_their_labels_by_the_seed_of_the_training():
    split = images(40, seed=0)
    whole = next(split.read(torch.arange(40), batch_size=40, augmentation="none", seed=0))
    drawn = masker_of(samples=20, seed=3).samples
    again, other = masker_of(samples=20, seed=3).samples, masker_of(samples=20, seed=4).samples
    assert torch.equal(drawn.images_NCHW, again.images_NCHW)
    assert not torch.equal(drawn.images_NCHW, other.images_NCHW)
    places = [
        next(i for i, one in enumerate(whole.pixels_BCHW) if torch.equal(one, image)) for image in drawn.images_NCHW
    ]
    assert len(set(places)) == 20
    assert torch.equal(drawn.labels_N, whole.truth[places])


def test_images_are_normalised():
    normalise = Normalisation(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))
    options = {"example_NCHW": EXAMPLE, "images": images(40, seed=0), "share": 0.5, "batch_size": 7, "seed": 0}
    mask = Mask(method=MethodChoice(name="sipp", parameters={"samples": 9}), ratio=0.5)
    normal = make_masker(mask, network(), normalise=normalise, **options).samples
    plain = make_masker(mask, network(), normalise=IDENTITY, **options).samples
    assert torch.allclose(normal.images_NCHW, (plain.images_NCHW - 0.5) / 0.25)


def test_without_a_mask_what_the_start_removed_stays_removed():
    model = nn.Linear(2, 1)
    alive = {"weight": torch.tensor([[True, False]])}
    pruned = prune(model, None, None, None, alive=alive)
    assert pruned.removed.keys() == pruned.enforced.keys() == alive.keys()
    assert pruned.growth is None
