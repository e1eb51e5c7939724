"""Every registered task passes the suite that plugins have to pass."""

from __future__ import annotations

import pytest

from raypruning import registry
from raypruning.testing.task_contract import TaskContract

# A family answers for every name below it; one of each, and an amplitude that clips.
MEMBERS = {"noise/uniform/": ["0.1", "2"], "noise/uniform_pixel/": ["8", "128"]}
NAMES = [name + member for name in registry.tasks.names() for member in MEMBERS.get(name, [""])]


class TestRegisteredTasks(TaskContract):
    @pytest.fixture(params=NAMES)
    def task_name(self, request: pytest.FixtureRequest) -> str:
        return request.param
