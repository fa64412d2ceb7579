#!/usr/bin/env bash
# MLflow keeps no SQLite store in a folder whose name holds ? or % and two hexadecimal digits. With
# the path as it is, the store is made in another place: SQLAlchemy ends the path at ? and decodes
# %. With the path quoted, the store is in the right place, but MLflow makes another folder beside
# it, the one that the path names before it is decoded, and fails where it may not make one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1
mkdir "$folder/as-it-is" "$folder/quoted"
cd "$folder"
venv/bin/python - <<'PY'
import sys
from pathlib import Path
from urllib.parse import quote

import mlflow
import sqlalchemy
from mlflow import MlflowClient

print("MLflow", mlflow.__version__, "SQLAlchemy", sqlalchemy.__version__)
seen = {}
for way in ("as-it-is", "quoted"):
    home = Path(way, "a%20b").absolute()
    home.mkdir()
    (home.parent / "a b").mkdir()
    path = str(home / "store.db")
    MlflowClient(f"sqlite:///{quote(path) if way == 'quoted' else path}").search_experiments()
    seen[way] = sorted(str(p.relative_to(home.parent)) for p in home.parent.rglob("*"))
    print(f"path {way}: the store of 'a%20b' was asked for; there are {seen[way]}")
assert seen["as-it-is"] == ["a b", "a b/store.db", "a%20b"], "MLflow's behaviour has changed"
assert seen["quoted"] == ["a b", "a%20b", "a%20b/store.db", "a%2520b"], "MLflow's behaviour has changed"
PY
