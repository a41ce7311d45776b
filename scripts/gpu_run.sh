#!/bin/sh
# Run gpu_run.py on a machine that has torch and lightning, and perhaps no network: what else minitx needs is taken from
# wheels/, where gpu_wheels.sh has put it. A virtual environment would not see the packages of the one that python3 may
# be in, so they go into a folder of their own, build/gpu-site, which is found first. Options are gpu_run.py's.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
site=$PWD/build/gpu-site
if [ -d wheels ] && [ ! -d "$site" ]; then
    echo "installing wheels/ into build/gpu-site ..."
    rm -rf "$site.part"
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site.part" wheels/*.whl
    mv "$site.part" "$site"
fi
export PYTHONPATH="$PWD/src:$site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
exec "$python" scripts/gpu_run.py "$@"
