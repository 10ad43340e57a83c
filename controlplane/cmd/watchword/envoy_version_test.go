package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is no Envoy is refused with the reason, also if it never ends; a path with
// the word in it does not help.
func TestCheckEnvoy(t *testing.T) {
	for script, want := range map[string]string{
		"echo; echo \"$0  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL\"": "",
		"echo \"$0 (coreutils) 9.1\"":                                     "something else",
		"exit 3":                                                          "exit status 3",
		"exec sleep 1000":                                                 "not answered --version in 200ms",
		"sleep 3 & sleep 1000":                                            "not answered --version in 200ms",
	} {
		binary := filepath.Join(t.TempDir(), "envoy")
		if err := os.WriteFile(binary, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		timeout := 10 * time.Second
		if strings.Contains(script, "sleep") {
			timeout = 200 * time.Millisecond
		}
		err := checkEnvoy(t.Context(), binary, timeout)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", script, err, want)
		}
	}
}
