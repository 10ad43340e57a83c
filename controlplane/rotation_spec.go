package controlplane

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What holds of the keys where the built-in issuer says nothing.
const (
	defaultAlgorithm = "ES256"
	defaultEvery     = 24 * time.Hour
	defaultGrace     = 30 * time.Second
	defaultHorizon   = 12 * time.Hour
)

// boundsOf are the times that the protocol counts on: those of fixed, which no
// resource says, and what the built-in issuer does.
func boundsOf(fixed ledger.Bounds, spec *policyv1.BuiltinKeys) ledger.Bounds {
	b := fixed
	b.Signing = orDefault(spec.GetSigningHorizon(), cmp.Or(fixed.Signing, defaultHorizon))
	b.Grace = orDefault(spec.GetRotation().GetGrace(), cmp.Or(fixed.Grace, defaultGrace))
	b.Stragglers = cmp.Or(fixed.Stragglers, ledger.Hold)
	if spec.GetRotation().GetStragglers() == policyv1.KeyRotation_GRACE {
		b.Stragglers = ledger.Grant
	}
	return b
}

// scheduleOf is how long a key signs, 0 until somebody asks for the next one, and what
// new keys are made for.
func scheduleOf(spec *policyv1.BuiltinKeys) (every time.Duration, algorithm string) {
	return orDefault(spec.GetRotation().GetEvery(), defaultEvery), cmp.Or(spec.GetAlgorithm(), defaultAlgorithm)
}

// orDefault tells 0s from nothing.
func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}
