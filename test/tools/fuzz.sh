#!/usr/bin/env bash
# fuzz.sh TIME: run each fuzz target of the repository for TIME. Go fuzzes one
# target of one package at a time, so somebody has to keep the list: we read it
# from the test files.
set -euo pipefail

time=$1
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	target=${target#func }
	echo "--- $(dirname "$file") $target ($time)"
	# One large input must not use up the time by being made smaller.
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "./$(dirname "$file")"
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' controlplane dataplane issuer internal 2>/dev/null | sort)
[[ $found -gt 0 ]] || echo "fuzz: no fuzz target found"
