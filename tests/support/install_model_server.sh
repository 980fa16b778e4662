#!/usr/bin/env bash
# Puts a real model server, llama.cpp's llama-server, into .cache/tools: Debian's package `llama.cpp-tools` and all that it
# needs, its own libc too, unpacked beside each other, so that it runs on an older system. Nothing is installed, root is
# not needed. About 20 MB to fetch, 75 MB unpacked, 10 s, once.
#
# The package is in `sid`, which moves: SUITE, MIRROR and KEYRING may be set, and the version is printed.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools="$PWD/.cache/tools"
mkdir -p "$tools"

if "$tools/llama-server" --version 2>/dev/null; then exit 0; fi
for program in apt-get dpkg-deb; do
  command -v "$program" >/dev/null || { echo "llama-server is unpacked from Debian packages: $program is missing" >&2; exit 1; }
done

scratch=$(mktemp -d "$tools/llama.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/apt/lists/partial" "$scratch/apt/archives/partial"
: >"$scratch/apt/status"

# The mirror that this machine uses already, when it is one of Debian's; and Debian's keys, fetched where they are missing.
. /etc/os-release
if [ -z "${MIRROR:-}" ] && [ "${ID:-}" = debian ]; then
  MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk -v release="${VERSION_CODENAME:-sid}" '$2 == release && !found {print $1; found = 1}')
fi
MIRROR=${MIRROR:-http://deb.debian.org/debian}
KEYRING=${KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
if [ ! -r "$KEYRING" ]; then
  (cd "$scratch" && apt-get download -q debian-archive-keyring && dpkg-deb --extract debian-archive-keyring_*.deb keys)
  KEYRING="$scratch/keys/usr/share/keyrings/debian-archive-keyring.gpg"
fi
echo "deb [signed-by=$KEYRING] $MIRROR ${SUITE:-sid} main" >"$scratch/apt/sources.list"

own_apt() { # with lists, cache and state of its own: the machine's are neither read nor changed
  apt-get -qq -o Dir::Etc::SourceList="$scratch/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State::Lists="$scratch/apt/lists" -o Dir::State::status="$scratch/apt/status" -o Dir::Cache="$scratch/apt" \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=3 \
    -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@"
}
echo "fetching llama.cpp-tools (${SUITE:-sid}) and what it needs"
own_apt update
own_apt install -y --no-install-recommends --download-only llama.cpp-tools >/dev/null
for package in "$scratch"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$scratch/root"; done

cat >"$scratch/llama-server" <<'WRAPPER'
#!/bin/sh
root="$(cd "$(dirname "$0")" && pwd)/llama.cpp"
lib="$root/usr/lib/$(uname -m)-linux-gnu"
set -- --argv0 llama-server --library-path "$lib:$lib/llama" "$root/usr/bin/llama-server" "$@"
# One back end named outright: the build looks for its plug-ins under /usr/lib. The first is the one that runs anywhere.
for GGML_BACKEND_PATH in "$lib"/ggml/backends0/libggml-cpu-x64.so "$lib"/ggml/backends0/libggml-cpu*.so; do
  [ -e "$GGML_BACKEND_PATH" ] && break
done
export GGML_BACKEND_PATH
for loader in "$lib"/ld-linux-*.so.*; do exec "$loader" "$@"; done
WRAPPER
chmod +x "$scratch/llama-server"
rm -rf "$tools/llama.cpp"
mv "$scratch/root" "$tools/llama.cpp"
mv "$scratch/llama-server" "$tools/llama-server"
"$tools/llama-server" --version
