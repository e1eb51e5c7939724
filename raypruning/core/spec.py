"""From what a person wrote (TOML, flags) to a SweepSpec, or to one line that says what is wrong with it."""

from __future__ import annotations

import copy
import difflib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from raypruning.core.budgets import problems as budget_problems
from raypruning.core.records import MethodChoice, Record, SweepSpec
from raypruning.core.schedule import problems
from raypruning.core.search.axis import position, ratio_at
from raypruning.core.search.strategy import STRATEGY_NAMES
from raypruning.errors import SpecError, UnknownNameError, unknown_name_message

Raw = dict[str, Any]

MAX_BISECTED = 4  # thresholds of a curve: with more, halving each one's bracket asks for more networks than a grid
MAX_NAME = 100  # characters: a sweep's name is a folder's


def parse_toml(text: str, *, source: str) -> Raw:
    """The tables of a TOML text. Raises SpecError with the line for bad syntax and for a key used twice."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source}: not valid TOML: {error}") from error


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Raw:
    """`base` with `changes` laid over it, table by table; a list replaces a list."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def with_settings(raw: Mapping[str, Any], settings: Iterable[str]) -> Raw:
    """`raw` with `key=value` settings laid over it, such as `search.high=0.95` or `recipe.epochs=20`.

    A value is read as TOML (numbers, true, lists); what is not valid TOML is taken as a string.
    """
    result = dict(raw)
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise SpecError(f"--set {setting}: must look like key=value, such as search.high=0.95")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        result = merged(result, value)
    return result


def expanded(raw: Mapping[str, Any]) -> Raw:
    """`raw` without short forms: a model, dataset, method, recipe or schedule by its name alone becomes a table.

    Raises: SpecError: a method's short form that cannot be read.
    """
    result = copy.deepcopy(dict(raw))
    if isinstance(result.get("model"), str):
        result["model"] = {"name": result["model"]}
    if "dataset" in result and isinstance(result.get("data", {}), Mapping):
        result["data"] = merged(result.get("data", {}), {"name": result.pop("dataset")})
    if isinstance(result.get("methods"), list):
        result["methods"] = [_method_table(one) if isinstance(one, str) else one for one in result["methods"]]
    if isinstance(result.get("recipe"), str):
        result["recipe"] = {"base": result["recipe"]}
    if isinstance(result.get("schedule"), str):
        result["schedule"] = {"kind": result["schedule"]}
    return result


def _method_table(text: str) -> Raw:
    """A method as it is labelled: `wt`, or `wt:rules=paper,skip=conv1+fc2`.

    A value is a TOML number or boolean, a list where it holds a plus, a table where all of the list is `key*number`,
    and a string otherwise.
    """
    name, has_parameters, rest = text.partition(":")
    parameters: Raw = {}
    for part in rest.split(",") if has_parameters else ():
        key, separator, value = (word.strip() for word in part.partition("="))
        if not (name.strip() and key and separator and value):
            raise SpecError(f"method {text!r}: must look like wt, or like wt:rules=paper,skip=conv1+fc2")
        if key in parameters:
            raise SpecError(f"method {text!r}: {key} is given twice")
        parameters[key] = _method_value(value)
    return {"name": name.strip(), "parameters": parameters} if parameters else {"name": text.strip()}


def _method_value(text: str) -> object:
    number = _toml_scalar(text)
    if number is not None:
        return number
    parts = text.split("+")
    pairs = [part.rpartition("*") for part in parts]
    weights = [_toml_scalar(weight) for _, _, weight in pairs]
    if all(key for key, _, _ in pairs) and all(isinstance(one, int | float) for one in weights):
        return {key: weight for (key, _, _), weight in zip(pairs, weights, strict=True)}
    return parts if len(parts) > 1 else text


def _toml_scalar(text: str) -> bool | int | float | None:
    """A number or boolean as TOML has it; None for anything else."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    return value if isinstance(value, bool | int | float) else None


def build_spec(raw: Mapping[str, Any], *, source: str, recipes: Mapping[str, Mapping[str, Any]]) -> SweepSpec:
    """A validated spec.

    Args:
        raw: of a sweep's TOML with flags laid over it, in short forms or not; `recipe.base` names one to begin from.
        source: where it came from, for messages.
        recipes: named recipes.

    Raises: SpecError, one line with the field, what is allowed and what to write.
    """
    try:
        short = expanded(raw)
    except SpecError as error:
        raise SpecError(f"{source}: {error}") from None
    normal = _with_chain(_with_recipe(short, source=source, recipes=recipes))
    try:
        spec = SweepSpec.model_validate(normal)
    except ValidationError as error:
        raise SpecError(f"{source}: {_explain(error)}") from None
    spec = _with_strategy(spec)
    _check(spec, source=source)
    return spec


def to_toml(spec: SweepSpec) -> str:
    """A TOML text that gives the same spec again. Fields that are None are left out, since TOML has no null."""
    tables = spec.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {_toml_value(value)}" for key, value in tables.items() if not isinstance(value, Mapping)]
    for key, table in tables.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{key}]", *(f"{name} = {_toml_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_value(key)} = {_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON escapes as TOML does, but for characters beyond 16 bits, which it splits, and DEL, which it then leaves.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _with_recipe(raw: Raw, *, source: str, recipes: Mapping[str, Mapping[str, Any]]) -> Raw:
    """`raw` with its recipe's fields laid over those of the named recipe that it begins from."""
    if not isinstance(raw.get("recipe"), Mapping):
        return raw
    recipe = dict(raw["recipe"])
    base = recipe.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str) or base not in recipes:
        raise UnknownNameError(f"{source}: {unknown_name_message('recipe', str(base), recipes)}")
    return {**raw, "recipe": merged(recipes[base], recipe)}


def _with_chain(raw: Raw) -> Raw:
    """An iterative schedule brings its search strategy along, since there is no other for it."""
    schedule, search = raw.get("schedule"), raw.get("search", {})
    is_iterative = isinstance(schedule, Mapping) and schedule.get("kind") == "iterative"
    return merged({"search": {"strategy": "chain"}}, raw) if is_iterative and isinstance(search, Mapping) else raw


def _with_strategy(spec: SweepSpec) -> SweepSpec:
    """The search strategy that fits the number of questions, where none is named."""
    search = spec.search
    if "strategy" in search.model_fields_set:
        return spec
    num_thresholds = len(spec.tasks) * len(spec.deltas)
    name = "grid" if search.ratios else "bisect" if num_thresholds <= MAX_BISECTED else "model"
    return spec.model_copy(update={"search": search.model_copy(update={"strategy": name})})


def _explain(error: ValidationError) -> str:
    """The first problem of a validation in one line; how many more there are."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    field = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        return f"unknown field {field!r}: {hint}{more}"
    if problem["type"] == "missing":
        return f"{field} is missing{more}"
    if path[0] == "deltas" and len(path) > 1:
        return (
            f"delta must be in (0, 1), got {problem['input']!r}; "
            f"it is a fraction: write 0.005 for half a percentage point{more}"
        )
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{field}: {message}, got {problem['input']!r}{more}"


def _fields_at(path: Sequence[str]) -> list[str]:
    """The fields of the record that a path of field names leads to."""
    record: Any = SweepSpec
    for part in path:
        field = record.model_fields.get(part) if isinstance(record, type) and issubclass(record, Record) else None
        if field is not None:
            arguments = [field.annotation, *getattr(field.annotation, "__args__", ())]
            record = next((a for a in arguments if isinstance(a, type) and issubclass(a, Record)), None)
    return sorted(record.model_fields) if record is not None and issubclass(record, Record) else []


def _check(spec: SweepSpec, *, source: str) -> None:
    """What one field's type cannot say."""

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise SpecError(f"{source}: {message}")

    for field in ("methods", "tasks", "deltas", "seeds", "budgets"):
        values = getattr(spec, field)
        names = [value.label if isinstance(value, MethodChoice) else value for value in values]
        require(len(values) > 0, f"{field} must hold at least one value")
        require(len(set(names)) == len(names), f"{field} holds a value twice: {', '.join(map(str, names))}")
    require(
        re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}", spec.name) is not None,
        f"name: at most {MAX_NAME} letters, digits, dots, dashes and underscores, a letter or digit first; "
        f"got {spec.name!r}",
    )
    search = spec.search
    if search.strategy not in STRATEGY_NAMES:
        raise UnknownNameError(f"{source}: {unknown_name_message('search strategy', search.strategy, STRATEGY_NAMES)}")
    require(search.low < search.high, f"search.low must be below search.high, got {search.low} and {search.high}")
    require(ratio_at(position(search.high)) < 1.0, f"search.high must be at most 0.999999, got {search.high}")
    require(search.resolution >= 0.001, f"search.resolution must be at least 0.001, got {search.resolution}")
    gpus = spec.resources.gpus_per_probe
    require(gpus <= 1 or gpus == int(gpus), f"resources.gpus_per_probe above 1 must be whole, got {gpus}")
    workers = spec.resources.workers_per_probe
    require(
        workers is None or gpus == 0 or workers == max(1, gpus),
        f"resources.workers_per_probe must be 1 for each of {gpus:g} GPUs, got {workers}: leave it out",
    )
    require(
        spec.resources.num_workers <= spec.recipe.batch_size,
        f"resources.workers_per_probe: {spec.resources.num_workers} workers share batches of "
        f"{spec.recipe.batch_size} images (recipe.batch_size): each must get one",
    )
    own = {"CPU": "cpus_per_probe", "GPU": "gpus_per_probe"}
    for name in spec.resources.custom:
        require(name not in own, f"resources.custom: write resources.{own.get(name)} for {name}")
    require("dense" not in [m.name for m in spec.methods], "methods: 'dense' is the name of the parent's own curve")
    epochs = spec.recipe.epochs
    late = [milestone for milestone in spec.recipe.milestones if milestone >= epochs]
    require(not late, f"recipe.milestones must lie before the last of {epochs} epochs, got {late}")
    require(spec.recipe.warmup_epochs < epochs, f"recipe.warmup_epochs must be fewer than the {epochs} epochs")
    try:
        problem = next(itertools.chain(problems(spec), budget_problems(spec)), None)
    except UnknownNameError as error:
        raise UnknownNameError(f"{source}: {error}") from None
    require(problem is None, problem or "")
