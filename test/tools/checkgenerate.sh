#!/usr/bin/env bash
# checkgenerate.sh BUF: is the generated code beside the protos what the protos
# generate? It works on a copy, so that a check never changes what it checks.
set -euo pipefail

buf=$PWD/$1
generated=(-name '*.pb.go' -o -name '*.pb.gw.go')

mkdir -p .build
tmp=$(mktemp -d .build/checkgenerate.XXXXXX)
trap 'rm -rf "$tmp"' EXIT

cp -R proto "$tmp/proto"
# A generated file whose proto is gone must show as a difference.
find "$tmp/proto" \( "${generated[@]}" \) -delete
(cd "$tmp/proto" && "$buf" generate)

if ! diff -qr proto "$tmp/proto" >"$tmp/diff"; then
	echo "checkgenerate: these files are not what the protos generate:" >&2
	sed -e "s|Files \(.*\) and .* differ|\1: differs|" \
		-e "s|Only in $tmp/\(.*\): \(.*\)|\1/\2: missing|" \
		-e "s|Only in \(.*\): \(.*\)|\1/\2: left over, no proto generates it|" \
		-e 's|^|  |' "$tmp/diff" >&2
	echo "checkgenerate: run \`make generate\`, delete what is left over, and commit the result" >&2
	exit 1
fi
echo "checkgenerate: $(find proto \( "${generated[@]}" \) | wc -l | tr -d ' ') generated files are up to date"
