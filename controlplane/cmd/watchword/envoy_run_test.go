package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// An Envoy whose certificate can't be kept fresh any more is ended, and the
// fault is what is told, not how Envoy ended.
func TestRunEnvoyEndsWithWhatItNeeds(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	want := errors.New("the socket is gone")
	failed := make(chan error, 1)
	failed <- want
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := runEnvoy(ctx, sleep, []string{"3600"}, failed); !errors.Is(err, want) || ctx.Err() != nil {
		t.Errorf("runEnvoy = %v, want %v", err, want)
	}
}

// A join token does not reach other programs.
func TestWithoutJoinToken(t *testing.T) {
	got := withoutJoinToken([]string{"A=b", joinTokenVariable + "=wwjt_x", joinTokenVariable + "_FILE=f", joinTokenVariable + "="})
	if want := []string{"A=b", joinTokenVariable + "_FILE=f"}; !slices.Equal(got, want) {
		t.Errorf("withoutJoinToken = %q, want %q", got, want)
	}
}
