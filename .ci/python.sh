#!/bin/sh
# Make sure that a Python can make virtual environments: python.sh PYTHON
set -eu
python=$1
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "make: $python is not Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2
    exit 1
}
"$python" -c 'import ensurepip, venv' 2>/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Debian and Ubuntu ship Python without it
    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
else
    echo "make: $python cannot make virtual environments; as root: apt-get install python3-venv" >&2
    exit 1
fi
