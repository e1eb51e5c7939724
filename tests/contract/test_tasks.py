"""Every registered task passes the suite that plugins have to pass."""

from __future__ import annotations

import pytest

from raypruning import registry
from raypruning.testing.task_contract import TaskContract

# A family answers for every name below it; some of each, and an amplitude that clips. Every corruption by itself is
# tested in tests/unit/corruptions.
MEMBERS = {
    "noise/uniform/": ["0.1", "2"],
    "noise/uniform_pixel/": ["8", "128"],
    "noise/gaussian/": ["0.1"],
    "corruption/": ["gaussian_noise/3", "zoom_blur/5", "frost/1", "saturate/4"],
    "corruption_cifar/": ["snow/2"],
    "corruption_imagenet/": ["jpeg_compression/3"],
}
NAMES = [name + member for name in registry.tasks.names() for member in MEMBERS.get(name, [""])]


class TestRegisteredTasks(TaskContract):
    @pytest.fixture(params=NAMES)
    def task_name(self, request: pytest.FixtureRequest) -> str:
        return request.param
