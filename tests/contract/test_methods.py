"""Every registered method passes the suite that plugins have to pass."""

from __future__ import annotations

import pytest

from raypruning import registry
from raypruning.core.records import MethodChoice
from raypruning.methods.method import Method
from raypruning.methods.prune import resolve_method
from raypruning.testing.method_contract import MethodContract


class TestRegisteredMethods(MethodContract):
    @pytest.fixture(params=registry.methods.names())
    def method(self, request: pytest.FixtureRequest) -> Method:
        return resolve_method(MethodChoice(name=request.param))
