#!/usr/bin/env bash
# Starts vLLM with a tiny random model and runs the tests that need one, with the options given here:
# tests/support/run_on_vllm.sh -q. Twice, one after the other: as vLLM comes, then so that it writes no blanks between
# JSON tokens and sends request ids back.
#
# Without VLLM it is vLLM for the CPU, which install_vllm.sh fetches once. On a machine with a GPU VLLM starts vLLM,
# VLLM_PYTHON is a Python with torch and transformers, PYTHON one with our own requirements, and nothing is fetched.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
PORT=${PORT:-18000}
READY_S=${READY_S:-900}
if [ -z "${VLLM:-}" ]; then
  bash tests/support/install_vllm.sh
  VLLM=.cache/model-servers/venv/bin/vllm
  VLLM_PYTHON=.cache/model-servers/venv/bin/python
  VLLM_OPTIONS=${VLLM_OPTIONS:---enforce-eager}
  export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
else
  VLLM_PYTHON=${VLLM_PYTHON:-python3}
  VLLM_OPTIONS="--kv-cache-memory-bytes 1G --gpu-memory-utilization 0.2 ${VLLM_OPTIONS:-}"
fi
export HF_HUB_OFFLINE=1

scratch=${SCRATCH:-$(mktemp -d)}
server=
stop() { # the server, and the processes that it started
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  kill -KILL -- "-$server" 2>/dev/null || true
  server=
}
trap stop EXIT

failed=0
run() { # OPTION... of the server; the tests' are in `options`
  local began=$SECONDS url="http://127.0.0.1:$PORT"
  setsid $VLLM serve "$scratch/tiny" --served-model-name tiny --host 127.0.0.1 --port "$PORT" --max-model-len 16384 \
    $VLLM_OPTIONS "$@" >"$scratch/vllm-$PORT.log" 2>&1 &
  server=$!
  until curl -fs "$url/health"; do
    if [ $((SECONDS - began)) -gt "$READY_S" ] || ! kill -0 "$server" 2>/dev/null; then
      tail -n 50 "$scratch/vllm-$PORT.log"
      exit 1
    fi
    sleep 1
  done
  curl -fs "$url/version" && echo " on port $PORT after $((SECONDS - began)) s"
  PENSTOCK_TEST_VLLM_URL="$url" $PYTHON -m pytest --timeout 1200 tests/contract/test_vllm_server.py \
    tests/contract/test_vllm_enforced.py "${options[@]}" || failed=1
  stop
  PORT=$((PORT + 1))
}

options=("$@")
$VLLM_PYTHON tests/support/tiny_hf.py "$scratch/tiny"
run
run --enable-request-id-headers --structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'
exit $failed
