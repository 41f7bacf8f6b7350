#!/usr/bin/env bash
# Train with one process per GPU (or, where there is none, with CPU processes).
#   dist_train.sh CONFIG NUM_PROCESSES [ARGUMENTS OF train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. PYTHON names another interpreter.
set -euo pipefail

if [ "$#" -lt 2 ]; then
    sed -n '2,4p' "$0" >&2
    exit 2
fi
config=$1
num_processes=$2
shift 2

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$num_processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
