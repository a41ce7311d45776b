#!/bin/sh
# Gather, in wheels/, what gpu_run.sh needs on a machine without a network that has torch, lightning and numpy: Python
# 3.12 on x86-64 Linux, or PYTHON_VERSION. Versions are those of constraints.txt. Left out, for their size and because
# no training on files or on the embedded text imports them: pyarrow, pandas, wandb, matplotlib, and what `datasets`
# needs; `datasets` itself is there because a result tells its version.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
version=${PYTHON_VERSION:-3.12}
most_mib=60
packages="click cloudpickle colorama datasets hydra-core joblib lxml nvidia-ml-py omegaconf portalocker PyYAML regex sacrebleu
    sacremoses safetensors tabulate tokenizers tqdm typing_extensions"
platforms=""
for glibc in 2_34 2_28 2_27 2_26 2_24 2_17 2_12 2_5; do
    platforms="$platforms --platform manylinux_${glibc}_x86_64"
done
rm -rf wheels
# shellcheck disable=SC2086  # both are lists of words
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -c constraints.txt -d wheels \
    --python-version "$version" --implementation cp $platforms --platform manylinux2014_x86_64 $packages
# it is published as source alone
"$python" -m pip wheel -q --disable-pip-version-check --no-deps -c constraints.txt -w wheels antlr4-python3-runtime
mib=$(du -sm wheels | cut -f1)
echo "$(ls wheels | wc -l) wheels, $mib MiB in wheels/"
if [ "$mib" -gt "$most_mib" ]; then
    echo "gpu_wheels.sh: more than $most_mib MiB" >&2
    exit 1
fi
