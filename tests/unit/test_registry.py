"""Names to objects: nothing is imported before it is asked for, and nobody overwrites anybody."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from raypruning import registry
from raypruning.errors import SpecError, UnknownNameError
from raypruning.registry import Registry, import_plugins


def points(**values: str) -> list[EntryPoint]:
    return [EntryPoint(name=name, value=value, group="raypruning.methods") for name, value in values.items()]


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """A module that can be imported until the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def fisher():
    """Something to register."""


def other_fisher():
    """Something else to register."""


# --- Reading ------------------------------------------------------------------------------------------------------


def test_listing_and_checking_names_imports_nothing(write_module):
    write_module("plugin_that_raises", "raise RuntimeError('imported')")
    found = Registry("method", known=points(fisher="plugin_that_raises:Fisher", absent="no_such_module:X"))
    assert found.names() == ["absent", "fisher"]
    assert "fisher" in found and "fishes" not in found
    found.check("fisher")
    assert found.owner("fisher") == "plugin_that_raises:Fisher"
    assert "plugin_that_raises" not in sys.modules


def test_listing_the_built_in_names_imports_neither_torch_nor_numpy():
    program = "import sys; from raypruning import registry\n"
    program += "names = [r.names() for r in (registry.methods, registry.models, registry.datasets, registry.tasks)]\n"
    program += "assert all(names); print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_name_gives_the_object_behind_it(write_module):
    write_module("plugin_methods", "class Fisher:\n    strength = 3\n")
    found = Registry("method", known=points(fisher="plugin_methods:Fisher")).get("fisher")
    assert (found.value.strength, found.argument) == (3, "")


@pytest.mark.parametrize("kind", ["methods", "models", "datasets", "tasks"])
def test_every_built_in_name_leads_to_a_function(kind):
    built_in = getattr(registry, kind)
    for name in built_in.names():
        if built_in.owner(name) == "raypruning":
            assert callable(built_in.get(name).value)


def test_unknown_name_is_refused_with_near_ones():
    known = Registry("method", known=points(magnitude="m:A", magnetic="m:B", fisher="m:C"))
    with pytest.raises(UnknownNameError) as caught:
        known.get("magnitud")
    assert str(caught.value) == "no method is called 'magnitud': did you mean magnitude or magnetic?"
    assert "fisher" not in str(caught.value)


def test_unknown_name_with_nothing_near_is_refused_with_all():
    with pytest.raises(UnknownNameError, match=r"no method is called 'xyz': there are a, b$"):
        Registry("method", known=points(b="m:B", a="m:A")).check("xyz")


# --- Families -----------------------------------------------------------------------------------------------------

FAMILIES = points(**{"noise/": "builtins:int", "noise/uniform/": "builtins:float", "noise/plain": "builtins:str"})


@pytest.mark.parametrize(
    ("name", "value", "argument"),
    [
        ("noise/uniform/0.1", float, "0.1"),
        ("noise/uniform/a/b", float, "a/b"),
        ("noise/gauss", int, "gauss"),
        ("noise/plain", str, ""),
        ("noise/uniform/", float, ""),
    ],
)
def test_family_of_the_longest_name_answers_and_is_given_the_rest(name, value, argument):
    assert Registry("task", known=FAMILIES).get(name) == (value, argument)


@pytest.mark.parametrize("name", ["noise", "nois/uniform/0.1", "uniform/0.1"])
def test_name_outside_every_family_is_unknown(name):
    with pytest.raises(UnknownNameError):
        Registry("task", known=FAMILIES).get(name)


def test_families_are_listed_with_their_slash():
    assert Registry("task", known=FAMILIES).names() == ["noise/", "noise/plain", "noise/uniform/"]


# --- Two owners of one name ---------------------------------------------------------------------------------------


def test_two_packages_with_one_name_are_refused_and_both_are_named():
    clashing = Registry("method", known=[*points(fisher="one.module:Fisher"), *points(fisher="other.module:F")])
    with pytest.raises(
        SpecError, match=r"two packages offer the method 'fisher': one.module:Fisher and other.module:F"
    ):
        clashing.names()


def test_one_package_that_is_seen_twice_is_no_clash():
    twice = Registry("method", known=[*points(fisher="one.module:Fisher"), *points(fisher="one.module:Fisher")])
    assert twice.names() == ["fisher"]


def test_registering_a_name_of_a_package_is_refused_and_both_are_named():
    known = Registry("method", known=points(fisher="one.module:Fisher"))
    with pytest.raises(SpecError) as caught:
        known.register("fisher")(fisher)
    assert str(caught.value) == f"{__name__}:fisher cannot be the method 'fisher': one.module:Fisher is"


def test_registering_a_name_twice_is_refused_and_both_are_named():
    known = Registry("method", known=[])
    known.register("fisher")(fisher)
    with pytest.raises(SpecError) as caught:
        known.register("fisher")(other_fisher)
    assert str(caught.value) == f"{__name__}:other_fisher cannot be the method 'fisher': {__name__}:fisher is"
    assert known.get("fisher").value is fisher


def test_registering_the_same_object_again_changes_nothing():
    known = Registry("method", known=[])
    assert known.register("fisher")(fisher) is fisher
    assert known.register("fisher")(fisher) is fisher
    assert known.names() == ["fisher"]


def test_registering_an_object_without_a_name_of_its_own_can_clash_too():
    from functools import partial

    known = Registry("method", known=[])
    known.register("fisher")(partial(fisher))
    with pytest.raises(SpecError, match=r"cannot be the method 'fisher'"):
        known.register("fisher")(fisher)


def test_registered_names_are_listed_beside_those_of_packages_and_know_their_module():
    known = Registry("method", known=points(magnitude="m:A"))
    known.register("fisher")(fisher)
    assert known.names() == ["fisher", "magnitude"]
    assert known.owner("fisher") == __name__


# --- Broken plugins -----------------------------------------------------------------------------------------------

BROKEN = {
    "missing_import": "import no_such_module",
    "bad_syntax": "def (:",
    "undefined_name": "print(undefined)",
    "raises": "raise RuntimeError('no licence')",
    "lacks_it": "x = 1",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_hurts_only_who_asks_for_it(write_module, name):
    write_module(f"broken_{name}", BROKEN[name])
    write_module("whole", "Good = 5")
    known = Registry("method", known=points(bad=f"broken_{name}:Bad", good="whole:Good"))
    assert known.names() == ["bad", "good"]
    assert known.get("good").value == 5
    with pytest.raises(SpecError, match=rf"the method 'bad' \(broken_{name}:Bad\) cannot be loaded: ") as caught:
        known.get("bad")
    assert "\n" not in str(caught.value)


# --- Modules that a sweep names -----------------------------------------------------------------------------------


def test_plugin_module_registers_what_it_decorates_once(write_module, tmp_path):
    write_module(
        "sweep_plugin",
        "from raypruning.registry import methods\n@methods.register('mine')\ndef method(parameters): return 7\n",
    )
    # In a process of its own, because what is registered stays.
    program = "from raypruning import registry\nregistry.import_plugins(['sweep_plugin', 'sweep_plugin'])\n"
    program += "print(registry.methods.get('mine').value({}), 'mine' in registry.methods.names())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "True"]


@pytest.mark.parametrize("name", ["missing_import", "bad_syntax", "undefined_name", "raises"])
def test_plugin_module_that_cannot_be_imported_is_refused_by_name(write_module, name):
    write_module(f"plugin_{name}", BROKEN[name])
    with pytest.raises(SpecError, match=f"plugins: the module 'plugin_{name}' cannot be imported: ") as caught:
        import_plugins([f"plugin_{name}"])
    assert "\n" not in str(caught.value)


def test_plugin_module_that_does_not_exist_is_refused_by_name():
    with pytest.raises(SpecError, match="plugins: the module 'no_such_module' cannot be imported: No module named"):
        import_plugins(["no_such_module"])
