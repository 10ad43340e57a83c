package main

import (
	"strings"
	"testing"
	"time"
)

// The line that is drawn again says how many audiences the next key signs for, and who
// is missing: before it has begun, of the next key; then, of those that still sign.
func TestKeyProgress(t *testing.T) {
	wait := waitView{Audience: "payments", Service: "payments", Count: 1, Who: []string{"node-7 (a)"}, Why: "behind"}
	replica := waitView{Audience: "orders", Replica: "0b8a7d6c-1111", Why: "not applied"}
	begun := keysView{Active: "k1", Audiences: 3, Keys: []keyView{{KID: "k1", State: "active"}, {KID: "k2", State: "standby", Waits: []waitView{wait, replica}}}}
	half := keysView{Active: "k2", Audiences: 3, Behind: 1, Keys: []keyView{{KID: "k1", State: "active", Waits: []waitView{wait}}, {KID: "k2", State: "active"}}}
	for _, c := range []struct {
		keys keysView
		want string
	}{
		{keysView{}, "0 of 0 audiences handed over after 2.0 s"},
		{begun, "0 of 3 audiences handed over after 2.0 s, waiting for node-7 (a) of payments and 1 more"},
		{half, "k2 signs for 2 of 3 audiences after 2.0 s, waiting for node-7 (a) of payments"},
		{keysView{Active: "k2", Audiences: 1}, "k2 signs for 1 of 1 audience after 2.0 s"},
	} {
		if got := c.keys.progress("k1", 2*time.Second); got != c.want {
			t.Errorf("progress of %+v: %q, want %q", c.keys, got, c.want)
		}
	}
}

// Only the word itself is it.
func TestAskWord(t *testing.T) {
	for answer, want := range map[string]bool{
		"revoke all\n": true, " revoke all \r\n": true, "revoke all": true,
		"": false, "y\n": false, "yes\n": false, "revoke\n": false, "REVOKE ALL\n": false,
	} {
		var out strings.Builder
		if err := askWord(strings.NewReader(answer), &out, "this costs a lot", wordForAll); (err == nil) != want {
			t.Errorf("askWord with answer %q = %v, want it confirmed: %t", answer, err, want)
		}
		if got := out.String(); got != "this costs a lot.\nType \"revoke all\" to go on: " {
			t.Errorf("askWord printed %q", got)
		}
	}
}

// What is waited for is told by what people can go to: a data plane, a replica, or
// readers of the key set.
func TestWaitWho(t *testing.T) {
	for _, c := range []struct {
		wait waitView
		want string
	}{
		{waitView{Service: "a", Count: 1, Who: []string{"n (i)"}}, "n (i) of a"},
		{waitView{Service: "a", Count: 2, Gone: 3, Who: []string{"n (i)", "m (j)"}}, "n (i) of a and 4 more"},
		{waitView{Service: "a", Gone: 1}, "1 data plane of a"},
		{waitView{Replica: "0123456789", Host: "h"}, "replica 01234567 (h)"},
		{waitView{Replica: "r"}, "replica r"},
		{waitView{Why: "cached key set"}, "readers of the JWKS endpoint"},
	} {
		if got := c.wait.who(); got != c.want {
			t.Errorf("who of %+v: %q, want %q", c.wait, got, c.want)
		}
	}
}
