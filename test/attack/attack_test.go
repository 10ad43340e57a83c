package attack

import (
	"context"
	"testing"
)

// TestSiege proves for each attack that others are served while it runs, and that
// nothing is left of it.
func TestSiege(t *testing.T) {
	c := newCastle(t)
	for _, a := range []struct {
		name string
		run  func(*castle) func(context.Context, *testing.T)
	}{
		{"slow clients", slowloris},
		{"idle connections", connections},
		{"large headers and bodies", large},
		{"streams that are reset", rapidReset},
		{"strangers at ADS", strangers},
		{"bad join tokens", badTokens},
		{"wrong clients", wrongClients},
		{"an instance that floods", instance},
	} {
		t.Run(a.name, func(t *testing.T) { c.withstand(t, a.run(c)) })
	}
}
