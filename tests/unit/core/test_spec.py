"""From TOML and flags to a spec, or to one line that says what is wrong."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.records import (
    DataChoice,
    Limits,
    MethodChoice,
    ModelChoice,
    Numerics,
    Recipe,
    Resources,
    Schedule,
    SearchSpec,
    SweepSpec,
)
from raypruning.core.spec import build_spec, expanded, merged, parse_toml, to_toml, with_settings
from raypruning.errors import SpecError, UnknownNameError

RECIPES = {
    "quick": {"epochs": 4, "learning_rate": 0.1, "milestones": [2.0], "numerics": {"threads": 2}},
    "paper_lenet5": {"epochs": 60, "learning_rate": 1.2e-3},
}
MINIMAL = {
    "name": "demo",
    "model": "lenet5",
    "dataset": "strokes",
    "methods": ["wt"],
    "budgets": [2],
    "recipe": {"base": "quick"},
}


def build(**changes):
    return build_spec({**MINIMAL, **changes}, source="demo.toml", recipes=RECIPES)


def refusal(raw) -> str:
    with pytest.raises(SpecError) as caught:
        build_spec(raw, source="demo.toml", recipes=RECIPES)
    return str(caught.value)


# --- Good input ---------------------------------------------------------------------------------------------------


def test_short_forms_stand_for_tables():
    spec = build(methods=["wt", {"name": "ft", "parameters": {"power": 2}}], data={"test_images": 500})
    assert spec.model == ModelChoice(name="lenet5")
    assert spec.data == DataChoice(name="strokes", test_images=500)
    assert spec.methods == (MethodChoice(name="wt"), MethodChoice(name="ft", parameters={"power": 2}))


@pytest.mark.parametrize("recipe", ["quick", {"base": "quick"}])
def test_recipe_by_name_is_the_named_one(recipe):
    assert build(recipe=recipe).recipe == Recipe(
        epochs=4, learning_rate=0.1, milestones=(2.0,), numerics=Numerics(threads=2)
    )


def test_fields_beside_a_base_recipe_win_and_the_others_stay():
    recipe = build(recipe={"base": "quick", "epochs": 8, "numerics": {"precision": "bfloat16"}}).recipe
    assert (recipe.epochs, recipe.milestones, recipe.learning_rate) == (8, (2.0,), 0.1)
    assert recipe.numerics == Numerics(precision="bfloat16", threads=2)


def test_recipe_without_a_base_stands_for_itself():
    assert build(recipe={"epochs": 1, "learning_rate": 1}).recipe == Recipe(epochs=1, learning_rate=1.0)


def test_building_a_spec_leaves_its_input_as_it_was():
    raw = {**MINIMAL, "data": {"test_images": 5}, "recipe": {"base": "quick", "numerics": {"threads": 3}}}
    before = repr((raw, RECIPES))
    build_spec(raw, source="demo.toml", recipes=RECIPES)
    assert repr((raw, RECIPES)) == before


def test_merged_lays_tables_over_tables_and_replaces_lists():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}
    assert merged(base, {"a": {"y": [3]}, "b": {"w": 1}, "c": 2}) == {"a": {"x": 1, "y": [3]}, "b": {"w": 1}, "c": 2}


names = st.text(string.ascii_lowercase, min_size=1, max_size=6)
texts = st.text(max_size=12)
numbers = st.floats(1e-12, 1e6)
fractions = st.floats(1e-6, 0.999)
options = st.dictionaries(
    texts, st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts, max_size=3
)


parameters = st.dictionaries(
    texts,
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.lists(texts, max_size=3).map(tuple)
    | st.dictionaries(texts, st.floats(-5, 5), max_size=2),
    max_size=3,
)


def unique(values):
    return st.lists(values, min_size=1, max_size=3, unique=True).map(tuple)


recipes = st.builds(
    Recipe,
    epochs=st.integers(50, 100),
    learning_rate=numbers,
    momentum=fractions,
    nesterov=st.booleans(),
    milestones=st.lists(st.floats(0.5, 49), max_size=3).map(tuple),
    warmup_epochs=st.floats(0, 5),
    weight_decay=st.floats(0, 1),
    optimiser=st.sampled_from(["sgd", "adam"]),
    numerics=st.builds(Numerics, precision=st.sampled_from(["float32", "bfloat16"]), threads=st.integers(1, 64)),
)
specs = st.builds(
    SweepSpec,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    model=st.builds(ModelChoice, name=texts, options=options),
    data=st.builds(DataChoice, name=texts, train_images=st.none() | st.integers(1, 10**6)),
    methods=st.lists(
        st.builds(MethodChoice, name=names.filter(lambda name: name != "dense"), parameters=parameters),
        min_size=1,
        max_size=3,
        unique_by=lambda method: method.label,
    ).map(tuple),
    tasks=unique(texts),
    deltas=unique(fractions),
    seeds=unique(st.integers(0, 2**62)),
    budgets=unique(st.integers(0, 500)),
    recipe=recipes,
    search=st.builds(
        SearchSpec,
        strategy=st.sampled_from(["bisect", "grid"]),
        low=st.floats(0, 0.4),
        high=st.floats(0.5, 0.99),
        resolution=st.floats(0.001, 0.9),
        ratios=st.lists(fractions, max_size=3).map(tuple),
    ),
    resources=st.builds(
        Resources,
        gpus_per_probe=fractions,
        cpus_per_probe=numbers,
        workers_per_probe=st.none() | st.just(1),
        sync_batch_norm=st.booleans(),
        images_at_once=st.none() | st.integers(1, 999),
        custom=st.dictionaries(texts.filter(lambda text: text not in ("CPU", "GPU")), numbers, max_size=2),
    ),
    limits=st.builds(Limits, max_probes=st.none() | st.integers(1, 1000)),
    plugins=st.lists(texts, max_size=2).map(tuple),
    note=texts,
)


schedules = st.one_of(
    st.builds(Schedule, rewind_epochs=st.none() | st.integers(0, 49)),
    st.builds(Schedule, kind=st.just("iterative"), steps=st.integers(1, 9), prunes_per_link=st.integers(1, 3)),
    st.builds(Schedule, kind=st.just("iterative"), grid=st.just("lost/resnet20"), rewind_epochs=st.just(0)),
    st.builds(Schedule, kind=st.just("iterative"), ratios=st.just((0.5, 0.9))),
    st.builds(Schedule, kind=st.just("gradual"), from_scratch=st.booleans(), begin=st.floats(0, 0.7)),
)


@st.composite
def scheduled_specs(draw):
    spec, schedule = draw(specs), draw(schedules)
    changes = {"schedule": schedule}
    if schedule.kind == "iterative":
        changes["search"] = spec.search.model_copy(update={"strategy": "chain", "ratios": ()})
    if schedule.kind == "gradual":
        changes["budgets"] = tuple(budget + 1 for budget in spec.budgets)
    return spec.model_copy(update=changes)


@settings(max_examples=100)
@given(specs | scheduled_specs())
def test_spec_written_as_toml_and_read_again_is_the_same_spec(spec):
    assert build_spec(parse_toml(to_toml(spec), source="x"), source="x", recipes={}) == spec


@pytest.mark.parametrize("note", ["\U0001f600", "\x7f", "\r\n\t\"\\", "ü 日本", "\x00\x1f"])  # fmt: skip
def test_text_that_toml_must_escape_survives_the_round_trip(note):
    spec = build(note=note, model={"name": "lenet5", "options": {note: note}})
    assert build_spec(parse_toml(to_toml(spec), source="x"), source="x", recipes={}) == spec


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("wt", MethodChoice(name="wt")),
        ("wt:rules=paper", MethodChoice(name="wt", parameters={"rules": "paper"})),
        ("wt:b=1,a=0.5,c=true,d=-1e-3", MethodChoice(name="wt", parameters={"a": 0.5, "b": 1, "c": True, "d": -1e-3})),
        ("wt:skip=conv1+fc2.0", MethodChoice(name="wt", parameters={"skip": ("conv1", "fc2.0")})),
        ("wt:map=conv1*0.5+fc*2", MethodChoice(name="wt", parameters={"map": {"conv1": 0.5, "fc": 2.0}})),
        ("wt:power=1e+5", MethodChoice(name="wt", parameters={"power": 1e5})),
        ("wt:note=a*b+c", MethodChoice(name="wt", parameters={"note": ("a*b", "c")})),
        (" wt : rules = paper ", MethodChoice(name="wt", parameters={"rules": "paper"})),
    ],
)
def test_method_with_parameters_is_read_from_its_short_form(text, method):
    assert build(methods=[text]).methods == (method,)


words = st.from_regex(r"[a-z_][a-z0-9_.]{0,8}", fullmatch=True).filter(lambda word: word not in ("true", "inf", "nan"))
words = words.filter(lambda word: word != "false")
labelled = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words
labelled |= st.lists(words, min_size=2, max_size=3).map(tuple)


@given(names.filter(lambda name: name != "dense"), st.dictionaries(words, labelled, max_size=3))
def test_label_of_a_method_is_what_gives_it_back(name, parameters):
    method = MethodChoice(name=name, parameters=parameters)
    assert build(methods=[method.label]).methods == (method,)


def test_methods_that_differ_in_a_parameter_are_two_and_equal_ones_are_refused():
    assert [one.label for one in build(methods=["wt", "wt:rules=paper"]).methods] == ["wt", "wt:rules=paper"]
    message = refusal({**MINIMAL, "methods": ["wt:a=1,b=2", "wt:b=2,a=1"]})
    assert "methods holds a value twice: wt:a=1,b=2, wt:a=1,b=2" in message


def test_schedule_by_its_kind_alone_and_an_iterative_one_brings_its_search_along():
    assert build(schedule="gradual").schedule == Schedule(kind="gradual")
    spec = build(schedule={"kind": "iterative", "steps": 3}, search={"high": 0.9})
    assert (spec.schedule, spec.search) == (
        Schedule(kind="iterative", steps=3),
        SearchSpec(strategy="chain", high=0.9),
    )
    assert build(schedule={"kind": "iterative", "steps": 3}, search={"strategy": "chain"}).search.strategy == "chain"


# --- Settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("search.high=0.95", {"search": {"low": 0.1, "high": 0.95}}),
        ("search.high = 0.95 ", {"search": {"low": 0.1, "high": 0.95}}),
        ("recipe.numerics.threads=4", {"recipe": {"numerics": {"threads": 4}}}),
        ("note=two words", {"note": "two words"}),
        ('note="1"', {"note": "1"}),
        ("note=a=b", {"note": "a=b"}),
        ("recipe.nesterov=true", {"recipe": {"nesterov": True}}),
        ("deltas=[0.01, 0.02]", {"deltas": [0.01, 0.02]}),
        ("recipe.learning_rate=5e-3", {"recipe": {"learning_rate": 0.005}}),
    ],
)
def test_setting_is_laid_over_as_toml_or_as_text(setting, expected):
    base = {"search": {"low": 0.1, "high": 0.9}}
    assert with_settings(base, [setting]) == {**base, **expected}
    assert base == {"search": {"low": 0.1, "high": 0.9}}


def test_later_setting_wins():
    assert with_settings({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


def test_setting_on_an_expanded_short_form_keeps_the_name_it_stood_for():
    raw = with_settings(expanded({**MINIMAL, "recipe": "quick"}), ["recipe.epochs=9", "model.options.dropout=0.5"])
    spec = build_spec(raw, source="demo.toml", recipes=RECIPES)
    assert (spec.recipe.epochs, spec.recipe.learning_rate) == (9, 0.1)
    assert spec.model == ModelChoice(name="lenet5", options={"dropout": 0.5})


@pytest.mark.parametrize("setting", ["search.high", "=3", " =3", ""])
def test_setting_without_key_or_value_is_refused_with_an_example(setting):
    with pytest.raises(SpecError, match=r"--set .*must look like key=value, such as search.high=0.95"):
        with_settings({}, [setting])


# --- Bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"deltas": [5]}, "delta must be in (0, 1), got 5; it is a fraction: write 0.005 for half a percentage point"),
        ({"deltas": [0]}, "delta must be in (0, 1), got 0;"),
        ({"deltas": [1]}, "delta must be in (0, 1), got 1;"),
        ({"deltas": [0.01, -0.1]}, "delta must be in (0, 1), got -0.1;"),
        ({"deltas": [float("nan")]}, "delta must be in (0, 1), got nan;"),
        ({"deltas": ["half"]}, "delta must be in (0, 1), got 'half';"),
        ({"budgets": [2, -1]}, "budgets.1: input should be greater than or equal to 0, got -1"),
        ({"budgets": [1.5]}, "budgets.0: input should be a valid integer"),
        ({"seeds": [-1]}, "seeds.0: input should be greater than or equal to 0, got -1"),
        ({"methods": []}, "methods must hold at least one value"),
        ({"tasks": []}, "tasks must hold at least one value"),
        ({"deltas": []}, "deltas must hold at least one value"),
        ({"name": ""}, "name: at most 100 letters"),
        ({"name": "a/../b"}, "name: at most 100 letters"),
        ({"name": "a" * 101}, "name: at most 100 letters"),
        ({"seeds": []}, "seeds must hold at least one value"),
        ({"budgets": []}, "budgets must hold at least one value"),
        ({"methods": ["wt", "ft", "wt"]}, "methods holds a value twice: wt, ft, wt"),
        ({"deltas": [0.01, 0.010]}, "deltas holds a value twice: 0.01, 0.01"),
        ({"seeds": [1, 1]}, "seeds holds a value twice: 1, 1"),
        ({"methods": ["dense"]}, "methods: 'dense' is the name of the parent's own curve"),
        ({"search": {"low": 0.9, "high": 0.5}}, "search.low must be below search.high, got 0.9 and 0.5"),
        ({"search": {"low": 0.5, "high": 0.5}}, "search.low must be below search.high, got 0.5 and 0.5"),
        ({"search": {"high": 1.0}}, "search.high: input should be less than 1, got 1.0"),
        ({"search": {"high": 0.9999999}}, "search.high must be at most 0.999999"),
        ({"search": {"resolution": 1e-5}}, "search.resolution must be at least 0.001, got 1e-05"),
        ({"search": {"strategy": "bisekt"}}, "no search strategy is called 'bisekt': did you mean bisect?"),
        ({"search": {"probes_per_round": 0}}, "search.probes_per_round: input should be greater than or equal to 1"),
        ({"resources": {"gpus_per_probe": 1.5}}, "resources.gpus_per_probe above 1 must be whole, got 1.5"),
        (
            {"resources": {"gpus_per_probe": 4, "workers_per_probe": 2}},
            "resources.workers_per_probe must be 1 for each of 4 GPUs, got 2: leave it out",
        ),
        ({"resources": {"gpus_per_probe": 0.5, "workers_per_probe": 2}}, "must be 1 for each of 0.5 GPUs, got 2"),
        (
            {"resources": {"workers_per_probe": 1000}},
            "1000 workers share batches of 128 images (recipe.batch_size): each must get one",
        ),
        ({"resources": {"custom": {"GPU": 1}}}, "resources.custom: write resources.gpus_per_probe for GPU"),
        ({"resources": {"custom": {"A100": 0}}}, "resources.custom.A100: input should be greater than 0, got 0"),
        ({"limits": {"max_probes": 0}}, "limits.max_probes: input should be greater than or equal to 1, got 0"),
        ({"recipe": {"base": "quikc"}}, "no recipe is called 'quikc': did you mean quick?"),
        ({"recipe": "quikc"}, "no recipe is called 'quikc': did you mean quick?"),
        ({"recipe": {"base": ["quick"]}}, "no recipe is called"),
        ({"recipe": {"epochs": 4}}, "recipe.learning_rate is missing"),
        ({"recipe": 5}, "recipe: "),
        ({"recipe": {"base": "quick", "milestones": [1, 4]}}, "recipe.milestones must lie before the last of 4 epochs"),
        ({"recipe": {"base": "quick", "warmup_epochs": 4}}, "recipe.warmup_epochs must be fewer than the 4 epochs"),
        ({"recipe": {"base": "quick", "learning_rat": 1}}, "'recipe.learning_rat': did you mean learning_rate or"),
        ({"recipe": {"base": "quick", "numerics": {"thread": 1}}}, "'recipe.numerics.thread': did you mean threads?"),
        ({"delta": [0.1]}, "unknown field 'delta': did you mean deltas or"),
        (
            {"search": {"zzz": 1}},
            "unknown field 'search.zzz': there are budget_distance, budget_search, high, low, max_points, "
            "probes_per_round, ratios, resolution",
        ),
        ({"methods": [{"name": "wt", "parametres": {}}]}, "'methods.0.parametres': did you mean parameters?"),
        ({"data": {"train_imgs": 1}}, "unknown field 'data.train_imgs': did you mean train_images or"),
        ({"data": "mnist"}, "data: input should be a valid dictionary"),
        ({"model": 3}, "model: "),
        ({"model": {"options": {}}}, "model.name is missing"),
        ({"methods": ["wt:"]}, "method 'wt:': must look like wt, or like wt:rules=paper,skip=conv1+fc2"),
        ({"methods": ["wt:rules"]}, "method 'wt:rules': must look like wt, or like"),
        ({"methods": [":a=1"]}, "method ':a=1': must look like"),
        ({"methods": ["wt:a=,b=1"]}, "method 'wt:a=,b=1': must look like"),
        ({"methods": ["wt:a=1,a=2"]}, "method 'wt:a=1,a=2': a is given twice"),
        ({"methods": ["dense:a=1"]}, "methods: 'dense' is the name of the parent's own curve"),
        ({"schedule": "iterative"}, "takes one of schedule.grid, schedule.ratios and schedule.steps, got none: write"),
        ({"schedule": {"kind": "iterative", "grid": "lost/vgg16", "steps": 3}}, "got grid and steps: write"),
        ({"schedule": {"kind": "iterative", "grid": "lost/vgg"}}, "'lost/vgg': did you mean lost/vgg16"),
        ({"schedule": {"kind": "iterative", "ratios": [0.5, 0.4]}}, "must ascend by at least a millionth"),
        ({"schedule": {"kind": "iterative", "ratios": [0.5, 0.5]}}, "must ascend by at least a millionth"),
        ({"schedule": {"kind": "iterative", "ratios": [0.5, 0.5000001]}}, "must ascend by at least a millionth"),
        ({"schedule": {"kind": "iterative", "ratios": [0.99999999]}}, "end below 1, got [0.99999999]"),
        ({"schedule": {"kind": "iterative", "ratios": [0.5, 1.0]}}, "schedule.ratios.1: input should be less than 1"),
        ({"schedule": {"kind": "iterative", "steps": 0}}, "schedule.steps: input should be greater than or equal to 1"),
        ({"schedule": {"kind": "iterative", "steps": 10**9}}, "schedule.steps must be at most 1000, got 1000000000"),
        (
            {"schedule": {"kind": "iterative", "steps": 900}, "search": {"low": 0.5, "high": 0.5001}},
            "schedule.steps=900 are more links than fit between 0.5 and 0.5001",
        ),
        (
            {"schedule": {"kind": "iterative", "grid": "lost/vgg16", "prunes_per_link": 2}},
            "the grid lost/vgg16 has prune steps of its own: leave schedule.prunes_per_link out",
        ),
        (
            {"schedule": {"kind": "iterative", "steps": 3}, "search": {"strategy": "bisect"}},
            "an iterative schedule is searched along its chain: leave search.strategy 'bisect' out",
        ),
        (
            {"schedule": {"kind": "iterative", "steps": 3}, "search": {"ratios": [0.5]}},
            "the ratios of an iterative schedule are schedule.ratios",
        ),
        ({"search": {"strategy": "chain"}}, "'chain' walks an iterative schedule, and this one is one_shot"),
        ({"schedule": {"steps": 3}}, "schedule.steps is of a schedule of kind iterative, and this one is one_shot"),
        ({"schedule": {"prunes_per_link": 2}}, "schedule.prunes_per_link is of a schedule of kind iterative"),
        (
            {"schedule": {"kind": "iterative", "steps": 3, "from_scratch": True}},
            "schedule.from_scratch is of a schedule of kind gradual, and this one is iterative: add --schedule gradual",
        ),
        ({"schedule": {"frequency": 5}}, "schedule.frequency is of a schedule of kind gradual"),
        ({"schedule": {"rewind_epochs": 4}}, "schedule.rewind_epochs must be fewer than the 4 epochs of the recipe"),
        ({"schedule": {"rewind_epochs": -1}}, "schedule.rewind_epochs: input should be greater than or equal to 0"),
        (
            {"schedule": {"kind": "gradual", "begin": 0.5, "end": 0.5}},
            "schedule.begin must be below schedule.end, got 0.5 and 0.5",
        ),
        ({"schedule": {"kind": "gradual", "rewind_epochs": 1}}, "a gradual one prunes while it trains"),
        ({"schedule": "gradual", "budgets": [0, 2]}, "budgets must be at least 1 epoch, got 0"),
        ({"schedule": {"kind": "gradual", "frequenzy": 1}}, "'schedule.frequenzy': did you mean frequency?"),
        (
            {"schedule": "iterativ"},
            "schedule.kind: input should be 'one_shot', 'iterative' or 'gradual', got 'iterativ'",
        ),
    ],
    ids=str,
)
def test_wrong_value_is_one_line_with_source_and_field(changes, expected):
    message = refusal({**MINIMAL, **changes})
    assert message.startswith("demo.toml: ")
    assert expected in message
    assert "\n" not in message


def test_single_delta_that_is_no_list_is_not_called_out_of_range():
    message = refusal({**MINIMAL, "deltas": 0.005})
    assert message.startswith("demo.toml: deltas: ")
    assert "must be in (0, 1)" not in message


def test_unknown_recipe_without_near_names_lists_all():
    assert refusal({**MINIMAL, "recipe": "x"}).endswith("no recipe is called 'x': there are paper_lenet5, quick")


def test_unknown_recipe_and_strategy_are_unknown_names():
    for changes in ({"recipe": "quikc"}, {"search": {"strategy": "bisekt"}}):
        with pytest.raises(UnknownNameError):
            build(**changes)


@pytest.mark.parametrize("field", ["name", "model", "methods", "budgets", "recipe"])
def test_missing_field_is_named(field):
    raw = {key: value for key, value in MINIMAL.items() if key != field}
    assert refusal(raw) == f"demo.toml: {field} is missing"


def test_first_of_several_problems_is_told_with_the_number_of_the_others():
    assert refusal({**MINIMAL, "budgets": [-1], "seeds": [-2], "nope": 1}).endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('name = "a"\nmodel = "m"\nname = "b"\n', "line 3"),
        ("[search]\nlow = 0.1\nlow = 0.2\n", "line 3"),
        ("[search]\nlow = 0.1\n[search]\nhigh = 0.9\n", "line 3"),
        ("name = \n", "line 1"),
        ('name = "a\n', "line 1"),
    ],
)
def test_toml_with_a_key_twice_or_bad_syntax_is_refused_with_source_and_line(text, line):
    with pytest.raises(SpecError) as caught:
        parse_toml(text, source="demo.toml")
    message = str(caught.value)
    assert message.startswith("demo.toml: not valid TOML: ")
    assert line in message
    assert "\n" not in message


# --- The search that fits the questions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "deltas", "search", "expected"),
    [
        (["nominal"], [0.01], {}, "bisect"),
        (["nominal", "noise/uniform/1"], [0.01, 0.02], {}, "bisect"),  # four thresholds
        (["nominal"], [0.01, 0.02, 0.03, 0.04, 0.05], {}, "model"),
        (["nominal"], [0.01, 0.02, 0.03, 0.04, 0.05], {"strategy": "bisect"}, "bisect"),
        (["nominal"], [0.01], {"strategy": "model"}, "model"),
        (["nominal"], [0.01], {"ratios": [0.5, 0.9]}, "grid"),
    ],
)
def test_strategy_that_is_not_named_follows_from_the_number_of_thresholds(tasks, deltas, search, expected):
    assert build(tasks=tasks, deltas=deltas, search=search).search.strategy == expected


def test_chain_is_searched_along_its_links_however_many_thresholds_there_are():
    deltas = [0.01, 0.02, 0.03, 0.04, 0.05]
    assert build(deltas=deltas, schedule={"kind": "iterative", "steps": 4}).search.strategy == "chain"
