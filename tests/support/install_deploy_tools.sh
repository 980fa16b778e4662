#!/usr/bin/env bash
# Puts the deployment files' own checkers into .cache/tools: the compose specification's loader (a Go module) and
# Prometheus' promtool (from Debian's package `prometheus`, unpacked, not installed). About 30 s, once.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools="$PWD/.cache/tools"
mkdir -p "$tools"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ ! -x "$tools/compose-check" ]; then
  command -v go >/dev/null || { echo "compose's own loader is built with Go 1.21 or newer: install it" >&2; exit 1; }
  GOBIN="$scratch" go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2
  mv "$scratch/cmd" "$tools/compose-check"
fi

if [ ! -x "$tools/promtool" ]; then
  cd "$scratch"
  apt-get download -q prometheus 2>/dev/null || { apt-get update -q && apt-get download -q prometheus; }
  dpkg-deb --extract prometheus_*.deb unpacked
  mv unpacked/usr/bin/promtool "$tools/promtool"
fi
ls -l "$tools"
