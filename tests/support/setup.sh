#!/usr/bin/env bash
# Installs what the tests on a real Kafka need beyond Python: Java 17 or newer, and Maven for the broker's jars.
# With root and apt it installs what is missing; elsewhere it says what to install, and fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests on a real Kafka need Java 17 or newer and Maven. Missing here (Debian's names): ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
