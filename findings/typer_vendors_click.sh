#!/usr/bin/env bash
# Typer 0.29 carries its own copy of Click. A Typer app is no `click.Command`, its usage errors are
# no `click.ClickException`, and installing Typer does not install Click. Code that catches Click's
# errors around a Typer app, or hands it to a tool for Click (sphinx-click, click.testing), fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check typer==0.29.2
"$folder/venv/bin/python" - <<'PY'
import importlib.util
import typer

app = typer.Typer()

@app.command()
def main(count: int) -> None: ...

command = typer.main.get_command(app)
has_click = importlib.util.find_spec("click") is not None
bases = [f"{base.__module__}.{base.__name__}" for base in type(command).__mro__]
errors = [f"{base.__module__}.{base.__name__}" for base in typer.BadParameter.__mro__]
print("typer", typer.__version__)
print("Click is installed with it:", has_click)
print("a command's classes:", ", ".join(bases[:2]))
print("a usage error's classes:", ", ".join(errors[:3]))
assert not has_click
assert not any(name.startswith("click.") for name in (*bases, *errors))
PY
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check click==8.5.1
"$folder/venv/bin/python" - <<'PY'
import click
import typer

app = typer.Typer()

@app.command()
def main(count: int) -> None: ...

command = typer.main.get_command(app)
print("with Click beside it, isinstance(command, click.Command):", isinstance(command, click.Command))
try:
    command.make_context("main", ["three"])
except click.ClickException:
    caught = "click.ClickException"
except Exception as error:
    caught = f"only {type(error).__module__}.{type(error).__name__}"
print("a wrong argument is caught as:", caught)
assert not isinstance(command, click.Command)
assert caught.startswith("only typer.")
PY
