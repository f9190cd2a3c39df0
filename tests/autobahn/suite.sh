#!/bin/sh
# Autobahn's test suite, in target/autobahn/suite. It is written for Python 2.7, which Debian no longer has: an interpreter
# is looked for in $PYTHON27, in the path, and among pyenv's. Everything else comes from PyPI.
set -eu
cd "$(dirname "$0")/../.."
folder=target/autobahn
[ -e $folder/suite/installed ] && exit 0

is_27() {
    [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 2.7 ]
}
found=
for python in "${PYTHON27:-}" python2.7 pypy2 pypy "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*2.7*/bin/python; do
    if [ -n "$python" ] && is_27 "$python"; then
        found=$python
        break
    fi
done
if [ -z "$found" ]; then
    echo "Autobahn's test suite needs Python 2.7, and there is none here: say where it is with PYTHON27=" >&2
    exit 1
fi

if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends python3-venv >&2
    else
        echo "on Debian or Ubuntu: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "installing Autobahn's test suite into $folder" >&2
mkdir -p $folder
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_PYTHON_VERSION_WARNING=1
python3 -m venv $folder/tools
# The last virtualenv that can make one for 2.7.
$folder/tools/bin/pip install --quiet 'virtualenv<20.22'
$folder/tools/bin/virtualenv --quiet --clear -p "$found" $folder/suite
$folder/suite/bin/pip install --quiet autobahntestsuite==0.8.2
touch $folder/suite/installed
