package main

import (
	"testing"
	"time"
)

// Durations are those of Go, and may begin with days, as tables print them.
func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"5s": 5 * time.Second, "1h30m": 90 * time.Minute, "1d": day, "7d": 7 * day, "1d12h": 36 * time.Hour, "0d": 0, "-1h": -time.Hour,
		"99999d1ns": 99999*day + 1,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%q: got %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "1", "soon", "1d-1h", "1d1d", "-1d", "999999d", "1.5d", "1h1d", "99999d2562047h"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}
