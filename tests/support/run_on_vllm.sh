#!/usr/bin/env bash
# Starts two vLLMs with a tiny random model on this machine's GPU and runs the tests that need one on each, with the
# options given here: tests/support/run_on_vllm.sh -q. The first runs as vLLM comes; the second writes no blanks between
# JSON tokens and sends request ids back. Nothing is fetched.
#
# VLLM starts vLLM, VLLM_PYTHON is a Python with torch and transformers, PYTHON one with our own requirements.
set -euo pipefail
cd "$(dirname "$0")/../.."
VLLM=${VLLM:-vllm}
VLLM_PYTHON=${VLLM_PYTHON:-python3}
PYTHON=${PYTHON:-.venv/bin/python}
VLLM_OPTIONS=${VLLM_OPTIONS:-}
PORT=${PORT:-18000}
READY_S=${READY_S:-240}

scratch=${SCRATCH:-$(mktemp -d)}
servers=()
trap 'kill "${servers[@]}" 2>/dev/null; wait' EXIT
$VLLM_PYTHON tests/support/tiny_hf.py "$scratch/tiny"

serve() { # PORT OPTION...
  local port=$1
  shift
  $VLLM serve "$scratch/tiny" --served-model-name tiny --host 127.0.0.1 --port "$port" --kv-cache-memory-bytes 1G \
    --gpu-memory-utilization 0.2 --max-model-len 16384 $VLLM_OPTIONS "$@" >"$scratch/vllm-$port.log" 2>&1 &
  servers+=($!)
}
serve "$PORT"
serve "$((PORT + 1))" --enable-request-id-headers \
  --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'

for port in "$PORT" "$((PORT + 1))"; do
  until curl -fs "http://127.0.0.1:$port/health"; do
    if [ "$SECONDS" -gt "$READY_S" ] || [ "$(jobs -rp | wc -l)" -lt 2 ]; then
      tail -n 50 "$scratch"/vllm-*.log
      exit 1
    fi
    sleep 1
  done
  curl -fs "http://127.0.0.1:$port/version" && echo " on port $port after $SECONDS s"
done

failed=0
for port in "$PORT" "$((PORT + 1))"; do
  PENSTOCK_TEST_VLLM_URL="http://127.0.0.1:$port" $PYTHON -m pytest \
    tests/contract/test_vllm_server.py tests/contract/test_vllm_enforced.py "$@" || failed=1
done
exit $failed
