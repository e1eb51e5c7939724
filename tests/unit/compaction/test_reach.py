"""Which layers can reach which readers, and bits that layers share because they never meet."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from raypruning.compaction.channels import layers_of
from raypruning.compaction.reach import colours, find_reach

NUM = 9
ROWS = st.lists(st.lists(st.booleans(), min_size=NUM, max_size=NUM), min_size=1, max_size=6)


@given(ROWS)
def test_layers_that_reach_one_reader_get_different_colours(rows: list[list[bool]]):
    reach = {str(index): torch.tensor(row) for index, row in enumerate(rows)}
    found_L = colours(reach)
    for row in reach.values():
        together = found_L[row].tolist()
        assert len(set(together)) == len(together)


def test_layers_that_never_meet_share_one_colour():
    assert (
        colours({"a": torch.tensor([True, False, False]), "b": torch.tensor([False, True, False])}).tolist() == [0] * 3
    )


class Forked(nn.Module):
    """first feeds second and a sum of both feeds third; aside is seen by head alone, through a copy in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.aside = nn.Conv2d(1, 4, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        c = self.third(torch.relu(a + self.second(a)))
        both = torch.zeros(len(x), 8)
        both[:, :4] = c.mean((2, 3))
        both[:, 4:] = self.aside(x).mean((2, 3))
        return self.head(both)


def test_reach_follows_sums_and_writes_in_place_and_no_further_than_the_next_layer():
    model = Forked().double()
    names = list(layers_of(model))
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = find_reach(model, torch.zeros(1, 6, 6, dtype=torch.float64), tensors, names)
    reached = {reader: {name for name, is_in in zip(names, row, strict=True) if is_in} for reader, row in found.items()}
    assert reached["second"] == {"first"}
    assert reached["third"] == {"first", "second"}
    assert reached["head"] == {"third", "aside"}
    assert reached["first"] == reached["aside"] == set()
