#!/bin/sh
# Within the build: install the wheel, import everything, and see that the code is the code that the image is named after.
set -eu
mkdir /tmp/install
export HOME=/tmp/install TMPDIR=/tmp/install
python3 -m pip install --quiet --no-cache-dir --no-deps --no-index --disable-pip-version-check /wheel/*.whl
python3 -B /usr/local/lib/health.py
source=$(python3 -B -m secateur.components.images)
if [ -n "$1" ] && [ "$1" != "$source" ]; then
    echo "error: SOURCE must be what is installed, $source, got $1; is .venv what requirements.lock says?" >&2
    exit 1
fi
rm -rf "$HOME" /wheel
