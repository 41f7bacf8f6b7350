#!/usr/bin/env bash
# Train with one process per GPU (or, where there is none, with CPU processes).
#   dist_train.sh CONFIG NUM_PROCESSES [ARGUMENTS OF train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. PYTHON names another interpreter.
# MAX_RESTARTS lets torchrun start failed processes again: give --resume, too. Then, or with NNODES=LEAST:MOST, the
# machines meet at MASTER_ADDR:PORT (RDZV_ID tells jobs apart) and NODE_RANK is not needed. See docs/distributed.md.
set -euo pipefail

if [ "$#" -lt 2 ]; then
    sed -n '2,6p' "$0" >&2
    exit 2
fi
config=$1
num_processes=$2
shift 2

nodes=${NNODES:-1}
restarts=${MAX_RESTARTS:-0}
address=${MASTER_ADDR:-127.0.0.1}
port=${PORT:-29500}
if [ "$restarts" != 0 ] || [[ "$nodes" == *:* ]]; then
    # A store of its own for every start: in the agents' common one the restarted processes can find addresses of those
    # that died, and wait for them.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    rendezvous=(--rdzv_backend=c10d --rdzv_endpoint="$address:$port" --rdzv_id="${RDZV_ID:-lite_detr}")
    # Addresses that a host's name stands for may be unreachable: say which one the others are to use.
    [ -z "${LOCAL_ADDR:-}" ] || rendezvous+=(--local_addr="$LOCAL_ADDR")
else
    rendezvous=(--node_rank="${NODE_RANK:-0}" --master_addr="$address" --master_port="$port")
fi

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="$nodes" \
    --max_restarts="$restarts" \
    "${rendezvous[@]}" \
    --nproc_per_node="$num_processes" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
