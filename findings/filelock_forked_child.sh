#!/usr/bin/env bash
# Until filelock 3.29, the end of a forked child freed the lock that its parent still held: the
# child inherits the lock object, whose finaliser unlocks the open file that both processes share.
# Since 3.30 the child closes its copy of the file and the parent keeps the lock.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
try() { # VERSION EXPECTED
    python3 -m venv "$folder/$1"
    "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check "filelock==$1"
    "$folder/$1/bin/python" - "$folder/$1.lock" "$2" <<'PY'
import os
import subprocess
import sys

import filelock

PROBE = "import filelock, sys\ntry: filelock.FileLock(sys.argv[1], timeout=0).acquire(); print('free')\nexcept filelock.Timeout: print('held')"


def state(path):
    return subprocess.run([sys.executable, "-c", PROBE, path], capture_output=True, text=True, check=True).stdout.strip()


path, expected = sys.argv[1:]
lock = filelock.FileLock(path)
lock.acquire()
before = state(path)
if (child := os.fork()) == 0:
    sys.exit()
os.waitpid(child, 0)
after = state(path)
assert lock.is_locked
print(f"filelock {filelock.__version__}: before the child {before}, after its end {after}; the parent says locked")
assert (before, after) == ("held", expected), (before, after)
PY
}
echo "A forked child that ends while its parent holds a FileLock:"
try 3.29.7 free
try 3.30.0 held
try 4.3.1 held
