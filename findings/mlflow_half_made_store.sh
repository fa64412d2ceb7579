#!/usr/bin/env bash
# MLflow makes the tables of a new SQLite store when MlflowClient is constructed, in one migration
# after another, each committed alone. A process that is killed meanwhile leaves a store that no
# later client can open: it neither goes on with the migrations nor begins again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check mlflow-skinny==3.17.2 sqlalchemy==2.1.9 alembic==1.20.1
cd "$folder"
venv/bin/python - <<'PY'
import sqlite3
import subprocess
import sys
import time

import mlflow

print("MLflow", mlflow.__version__)
open_it = "from mlflow import MlflowClient; MlflowClient('sqlite:///store.db').search_experiments(); print('opened')"
process = subprocess.Popen([sys.executable, "-c", open_it], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
tables = 0
while process.poll() is None and tables < 8:
    time.sleep(0.005)
    try:
        with sqlite3.connect("file:store.db?mode=ro", uri=True) as store:
            tables = store.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    except sqlite3.OperationalError:
        continue
process.kill()
process.communicate()
again = subprocess.run([sys.executable, "-c", open_it], capture_output=True, text=True)
reason = next((line[:160] for line in reversed(again.stderr.splitlines()) if "Error: " in line), "")
print(f"killed with {tables} tables; opened again: exit code {again.returncode}, {reason}")
assert tables >= 8 and again.returncode != 0, "MLflow's behaviour has changed"
PY
