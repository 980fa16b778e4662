#!/usr/bin/env bash
# Builds a real Ollama into .cache/tools: its Go module, with the llama.cpp that it holds compiled by cgo. Needs Go 1.24 or
# newer, a C++ compiler and pip. Nine minutes of CPU, once; 77 MB of headers to fetch beside the modules.
#
# A module leaves out every folder called `vendor`, and in one of them llama.cpp keeps headers of others (nlohmann/json,
# stb, miniaudio): they come out of the sdist of llama-cpp-python, which holds the same tree, pinned by its hash.
set -euo pipefail
cd "$(dirname "$0")/../.."
VERSION=0.17.4
HEADERS="llama-cpp-python==0.3.36 --hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PYTHON=${PYTHON:-python3}
tools="$PWD/.cache/tools"
mkdir -p "$tools"

if [ "$("$tools/ollama" --version 2>/dev/null | grep -o '[0-9.]*$' | tail -n 1)" = "$VERSION" ]; then
  ls -l "$tools/ollama"
  exit 0
fi
for program in go g++ "$PYTHON"; do
  command -v "$program" >/dev/null || { echo "Ollama is compiled here: $program is missing" >&2; exit 1; }
done

scratch=$(mktemp -d "$tools/ollama.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
echo "fetching headers ($HEADERS)"
echo "$HEADERS" >"$scratch/headers.txt"
"$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: --require-hashes \
  -r "$scratch/headers.txt" -d "$scratch"
tar -C "$scratch" -xzf "$scratch"/llama_cpp_python-*.tar.gz --wildcards '*/vendor/llama.cpp/vendor/*'
headers=$(echo "$scratch"/llama_cpp_python-*/vendor/llama.cpp/vendor)

echo "compiling Ollama $VERSION: minutes"
GOBIN="$scratch" CPATH="$headers" CGO_CFLAGS="-O1 -g0" CGO_CXXFLAGS="-O1 -g0" go install \
  -ldflags "-s -w -X github.com/ollama/ollama/version.Version=$VERSION" "github.com/ollama/ollama@v$VERSION"
mv "$scratch/ollama" "$tools/ollama"
ls -l "$tools/ollama"
