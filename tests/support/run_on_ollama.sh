#!/usr/bin/env bash
# Starts two Ollamas with tiny random models on this machine and runs the tests that need one on each, with the options
# given here: tests/support/run_on_ollama.sh -q. The first runs the models by llama.cpp, as Ollama does with older
# architectures; the second by Ollama's own engine, as it does with newer ones. Without OLLAMA, the program, it is built
# first, once (install_ollama.sh: minutes). PYTHON is one with our own requirements.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
READY_S=${READY_S:-60}
if [ -z "${OLLAMA:-}" ]; then
  bash tests/support/install_ollama.sh
  OLLAMA="$PWD/.cache/tools/ollama"
fi

scratch=${SCRATCH:-$(mktemp -d)}
servers=()
# The runners that hold the models are the server's children, and end with it.
trap 'kill "${servers[@]}" 2>/dev/null; wait; [ -n "${SCRATCH:-}" ] || rm -rf "$scratch"' EXIT
mkdir -p "$scratch/made"
$PYTHON -m tests.support.ollama_server "$scratch/made"
read -r -a ports <<<"$($PYTHON -c 'from tests.support.kafka import free_ports; print(*free_ports(2))')"

# One call at a time and a queue of one: how it is overloaded is seen with little load.
export HOME="$scratch" OLLAMA_MODELS="$scratch/models" OLLAMA_NO_CLOUD=1 OLLAMA_CONTEXT_LENGTH=2048
export OLLAMA_NUM_PARALLEL=1 OLLAMA_MAX_QUEUE=1 OLLAMA_MAX_LOADED_MODELS=3
serve() { # PORT NAME=VALUE...
  local port=$1
  shift
  env OLLAMA_HOST="127.0.0.1:$port" "$@" "$OLLAMA" serve >"$scratch/ollama-$port.log" 2>&1 &
  servers+=($!)
}
serve "${ports[0]}"
serve "${ports[1]}" OLLAMA_NEW_ENGINE=1

for port in "${ports[@]}"; do
  until curl -fs "http://127.0.0.1:$port/api/version"; do
    if [ "$SECONDS" -gt "$READY_S" ] || [ "$(jobs -rp | wc -l)" -lt 2 ]; then
      tail -n 50 "$scratch"/ollama-*.log
      exit 1
    fi
    sleep 0.1
  done
  echo " on port $port after $SECONDS s"
done
for file in "$scratch"/made/*.modelfile; do
  OLLAMA_HOST="127.0.0.1:${ports[0]}" "$OLLAMA" create "$(basename "$file" .modelfile)" -f "$file" >/dev/null 2>&1
done

failed=0
for port in "${ports[@]}"; do
  PENSTOCK_TEST_OLLAMA_URL="http://127.0.0.1:$port" $PYTHON -m pytest \
    tests/contract/test_ollama_server.py tests/contract/test_ollama_enforced.py "$@" || failed=1
done
exit $failed
