"""Files of weights that somebody damaged or made up: read, or refused in one line."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from raypruning.errors import SpecError
from raypruning.models.pretrained import read_state

STATE = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.zeros(3)}


def saved(*, as_archive: bool) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=as_archive)
    return file.getvalue()


FILES = [(".safetensors", save(STATE)), (".pt", saved(as_archive=True)), (".pth", saved(as_archive=False))]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(FILES),
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4),
    from_end=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_damaged_weights_are_read_or_refused_in_one_line(
    file: tuple[str, bytes], changes: list[tuple[int, int]], from_end: bool, tmp_path: Path
):
    ending, whole = file
    content = bytearray(whole)
    for place, value in changes:
        place %= len(content)
        content[-place if from_end else place] = value
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    try:
        state = read_state(path)
    except SpecError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_refusal_of_code_does_not_say_how_to_run_it(tmp_path: Path):
    path = tmp_path / "weights.pt"
    torch.save({"fc.weight": re.compile("x")}, path)
    with pytest.raises(
        SpecError, match=r"holds more than tensors, which could run code; torch\.save\(model\.state_dict"
    ):
        read_state(path)
