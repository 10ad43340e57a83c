package controlplane

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What the built-in issuer says is what the protocol goes by; where it says nothing,
// the defaults of docs/policies.md hold, and 0s is not nothing.
func TestRotationSpec(t *testing.T) {
	fixed := ledger.Bounds{Authority: 10 * time.Second, ClockError: time.Second}
	for name, c := range map[string]struct {
		spec      *policyv1.BuiltinKeys
		bounds    ledger.Bounds
		every     time.Duration
		algorithm string
	}{
		"nothing": {nil,
			ledger.Bounds{Authority: 10 * time.Second, ClockError: time.Second, Signing: 12 * time.Hour, Grace: 30 * time.Second, Stragglers: ledger.Hold},
			24 * time.Hour, "ES256"},
		"everything": {&policyv1.BuiltinKeys{
			Algorithm: "PS384", SigningHorizon: durationpb.New(time.Minute),
			Rotation: &policyv1.KeyRotation{Every: durationpb.New(time.Hour), Stragglers: policyv1.KeyRotation_GRACE, Grace: durationpb.New(time.Second)},
		}, ledger.Bounds{Authority: 10 * time.Second, ClockError: time.Second, Signing: time.Minute, Grace: time.Second, Stragglers: ledger.Grant},
			time.Hour, "PS384"},
		"by hand": {&policyv1.BuiltinKeys{Rotation: &policyv1.KeyRotation{Every: durationpb.New(0), Stragglers: policyv1.KeyRotation_HOLD}},
			ledger.Bounds{Authority: 10 * time.Second, ClockError: time.Second, Signing: 12 * time.Hour, Grace: 30 * time.Second, Stragglers: ledger.Hold},
			0, "ES256"},
	} {
		if got := boundsOf(fixed, c.spec); got != c.bounds {
			t.Errorf("%s: bounds of %v: %+v, want %+v", name, c.spec, got, c.bounds)
		}
		if every, algorithm := scheduleOf(c.spec); every != c.every || algorithm != c.algorithm {
			t.Errorf("%s: schedule of %v: %s of %s, want %s of %s", name, c.spec, every, algorithm, c.every, c.algorithm)
		}
	}
}
