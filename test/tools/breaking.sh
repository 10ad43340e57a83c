#!/usr/bin/env bash
# breaking.sh BUF: would the protos break who was built with the last release,
# or, on a branch before any release, with main? On main before any release
# nobody was promised anything, so there is nothing to compare with.
set -euo pipefail

buf=$PWD/$1

base=
if tag=$(git describe --tags --abbrev=0 2>/dev/null); then
	base=tag=$tag
elif [[ "$(git symbolic-ref --short -q HEAD)" != main ]] && git show-ref --verify -q refs/heads/main; then
	base=branch=main
fi
if [[ -z "$base" ]]; then
	echo "buf breaking: no release yet, nothing to compare with"
	exit 0
fi
echo "buf breaking: against ${base#*=}"
cd proto
"$buf" breaking --against "$(git rev-parse --absolute-git-dir)#$base,subdir=proto"
