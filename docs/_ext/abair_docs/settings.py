"""Settings, thresholds and gates as Markdown, from the pydantic classes and the gates."""

from __future__ import annotations

import inspect
from typing import Final

from pydantic import BaseModel

import abair.training.settings as training_settings
from abair.labels import CLEAN
from abair.report import Group, Report, Way
from abair_docs.tables import bounds, code, default, fields, kind, paragraphs, table
from abair_registry.operations.gates import evaluate_gates
from abair_registry.settings import Settings, Thresholds

WAYS: Final[tuple[Way, ...]] = ("input", "backbone", "OH", "SW", "Oracle", "champion")


def training() -> str:
    """Return a section for each class of training settings, with the defaults of each phase."""
    parts = []
    for name, model in vars(training_settings).items():
        ours = inspect.isclass(model) and model.__module__ == training_settings.__name__
        if ours and issubclass(model, BaseModel) and not name.startswith("_"):
            made = {n: v for n, v in vars(training_settings).items() if type(v) is model}
            parts += [f"### `{name}`", paragraphs(model), _training_table(model, made)]
    if not parts:
        raise LookupError("abair.training.settings: found no class of settings, expected at least one")
    return "\n\n".join(parts)


def _training_table(model: type[BaseModel], made: dict[str, BaseModel]) -> str:
    heads = ["setting", "type", *(made or ["default"]), "meaning"]
    rows = []
    for name, field in model.model_fields.items():
        values = [code(repr(getattr(instance, name))) for instance in made.values()] or [default(field)]
        limits = ", ".join(filter(None, [code(kind(model, name)), bounds(field)]))
        rows.append([code(name), limits, *values, field.description or ""])
    return table(heads, rows)


def registry() -> str:
    """Return the registry's settings and the environment variable of each."""
    rows = []
    prefix = Settings.model_config.get("env_prefix", "")
    deeper = Settings.model_config.get("env_nested_delimiter", "")
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}".upper())
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            for inner in field.annotation.model_fields:
                variable_of_inner = f"{variable}{deeper}{inner.upper()}"
                rows.append(_variable(variable_of_inner, field.annotation, inner))
        else:
            rows.append(_variable(variable, Settings, name))
    return f"{paragraphs(Settings)}\n\n{table(['variable', 'type', 'default', 'meaning'], rows)}"


def _variable(variable: str, model: type[BaseModel], name: str) -> list[str]:
    field = model.model_fields[name]
    return [code(variable), code(kind(model, name)), default(field), field.description or ""]


def thresholds() -> str:
    """Return the thresholds, their defaults, and what they are compared with."""
    return f"{paragraphs(Thresholds)}\n\n{fields(Thresholds)}"


def gates() -> str:
    """Return all verdicts on a report with a new label, live ones, mixtures and clean photos."""
    marked = Thresholds(**{name: 0.5 + place / 100 for place, name in enumerate(Thresholds.model_fields)})
    names = {getattr(marked, name): name for name in Thresholds.model_fields}
    rows = []
    for result in evaluate_gates(_report(), marked):
        verdict = result.verdict
        default_value = getattr(Thresholds(), names[verdict.threshold])
        rows.append(
            [verdict.name, code(names[verdict.threshold]), f"{default_value} {verdict.unit}".strip(), verdict.advice]
        )
    return table(["verdict", "threshold", "default", "advice where it is refused"], rows)


def _report() -> Report:
    """Return a report in which `snow` is new and `noise` and `rain` are live."""

    def group(*labels: str, new: bool = False) -> Group:
        ways = WAYS[:-1] if new else WAYS
        return Group(labels=labels, psnr=dict.fromkeys(ways, (30.0, 31.0)), top=(labels[0],) * 2)

    groups = (group("snow"), group("noise"), group("noise", "rain"), group("noise", "snow"), group(CLEAN))
    return Report(new=("snow",), groups=groups)
