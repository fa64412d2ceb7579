#!/usr/bin/env bash
# A patch release of filelock, 4.0.7, refuses a FileLock whose `mode` does not let its owner read and
# write: a ValueError, no OSError, when the lock is made. 4.0.6 acquired it. A lock that takes the
# permissions of a read-only file beside it fails so after an update.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
try() { # VERSION EXPECTED
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check "filelock==$1"
    "$folder/$1/bin/python" - "$folder/$1.lock" "$2" <<'PY'
import sys

import filelock

path, expected = sys.argv[1:]
try:
    with filelock.FileLock(path, mode=0o440):
        found = "acquired"
except ValueError as error:
    found = f"ValueError: {error}"
print(f"filelock {filelock.__version__}: {found}")
assert found.startswith(expected), found
PY
}
echo "A FileLock of mode 0o440:"
try 4.0.6 acquired
try 4.0.7 ValueError
try 4.3.1 ValueError
