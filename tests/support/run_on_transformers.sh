#!/usr/bin/env bash
# Starts `transformers serve` with a tiny model on the CPU and runs the tests that need one, with the options given here:
# tests/support/run_on_transformers.sh -q. install_vllm.sh fetches it once.
#
# Elsewhere TRANSFORMERS starts it, TRANSFORMERS_PYTHON is a Python with torch and transformers, PYTHON one with our own
# requirements, and nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
PORT=${PORT:-18010}
READY_S=${READY_S:-900}
if [ -z "${TRANSFORMERS:-}" ]; then
  bash tests/support/install_vllm.sh
  TRANSFORMERS=$PWD/.cache/model-servers/venv/bin/transformers
  TRANSFORMERS_PYTHON=.cache/model-servers/venv/bin/python
fi
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

scratch=${SCRATCH:-$(mktemp -d)}
log=$scratch/transformers.log
server=
trap '{ [ -z "$server" ] || kill "$server"; wait; } 2>/dev/null || true' EXIT
${TRANSFORMERS_PYTHON:-python3} tests/support/chain_hf.py "$scratch/tiny"
began=$SECONDS
(cd "$scratch" && exec $TRANSFORMERS serve tiny --device cpu --host 127.0.0.1 --port "$PORT") >"$log" 2>&1 &
server=$!
until curl -fs "http://127.0.0.1:$PORT/health"; do
  if [ $((SECONDS - began)) -gt "$READY_S" ] || ! kill -0 "$server" 2>/dev/null; then
    tail -n 50 "$log"
    exit 1
  fi
  sleep 1
done
echo " from transformers serve on port $PORT after $((SECONDS - began)) s"
PENSTOCK_TEST_TRANSFORMERS_URL="http://127.0.0.1:$PORT" $PYTHON -m pytest --timeout 600 \
  tests/contract/test_transformers_server.py "$@"
