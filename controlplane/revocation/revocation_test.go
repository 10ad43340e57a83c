package revocation_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/revocation"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

func entry(t testing.TB, e revocation.Entry) revocation.Entry {
	t.Helper()
	made, err := revocation.New(e)
	if err != nil {
		t.Fatalf("%+v: %v", e, err)
	}
	return made
}

// All that is wrong with an entry is said at once, and nothing odd becomes one.
func TestNewRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		e    revocation.Entry
		want []string
	}{
		"nothing":           {revocation.Entry{}, []string{"kind", "value", "issuer"}},
		"no value":          {revocation.Entry{Kind: revocation.Token, Issuer: "sts"}, []string{"value"}},
		"a line break":      {revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: "a\nb"}, []string{"value"}},
		"no UTF-8":          {revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: "\xff"}, []string{"value"}},
		"long":              {revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: strings.Repeat("x", 1025)}, []string{"value"}},
		"an issuer with |":  {revocation.Entry{Kind: revocation.Token, Issuer: "a|b", Value: "x"}, []string{"issuer"}},
		"a consumer of one": {revocation.Entry{Kind: revocation.Consumer, Issuer: "sts", Value: "x"}, []string{"issuer"}},
		"a token in time":   {revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: "x", IssuedBefore: 7}, []string{"issued before"}},
		"no time":           {revocation.Entry{Kind: revocation.IssuedBefore, Issuer: "sts"}, []string{"issued before"}},
		"a long reason":     {revocation.Entry{Kind: revocation.Subject, Issuer: "sts", Value: "x", Reason: strings.Repeat("x", 1001)}, []string{"reason"}},
	} {
		_, err := revocation.New(tt.e)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want a fault of %s", name, err, want)
			}
		}
	}
}

// Revoking twice is revoking once, whatever order the audiences have; another issuer,
// kind, value or audience is another entry.
func TestID(t *testing.T) {
	one := entry(t, revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: "j", Audiences: []string{"b", "a"}})
	same := entry(t, revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: "j", Audiences: []string{"a", "b", "a"}, Reason: "x"})
	if one.ID != same.ID || one.ID == "" {
		t.Errorf("IDs %q and %q, want one", one.ID, same.ID)
	}
	for _, other := range []revocation.Entry{
		{Kind: revocation.Token, Issuer: "sts", Value: "j"}, {Kind: revocation.Token, Issuer: "idp", Value: "j", Audiences: []string{"a", "b"}},
		{Kind: revocation.Subject, Issuer: "sts", Value: "j", Audiences: []string{"a", "b"}}, {Kind: revocation.Token, Issuer: "sts", Value: "k", Audiences: []string{"a", "b"}},
	} {
		if got := entry(t, other); got.ID == one.ID {
			t.Errorf("%+v has the ID of %+v", got, one)
		}
	}
}

// A later revocation only widens: the later time, and the later end, of which never is
// the last.
func TestWiden(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0).UTC() }
	for _, tt := range []struct {
		before, later int64
		ends, end     time.Time
		until         int64
		want          time.Time
	}{
		{10, 20, at(100), at(200), 20, at(200)},
		{20, 10, at(200), at(100), 20, at(200)},
		{10, 20, time.Time{}, at(200), 20, time.Time{}},
		{10, 20, at(100), time.Time{}, 20, time.Time{}},
	} {
		a := revocation.Entry{IssuedBefore: tt.before, Ends: tt.ends}
		got := a.Widen(revocation.Entry{IssuedBefore: tt.later, Ends: tt.end})
		if got.IssuedBefore != tt.until || !got.Ends.Equal(tt.want) {
			t.Errorf("%+v: got until %d and the end %s", tt, got.IssuedBefore, got.Ends)
		}
	}
	if e := (revocation.Entry{Ends: at(100)}); e.Expired(at(100)) || !e.Expired(at(101)) || (revocation.Entry{}).Expired(at(1<<40)) {
		t.Error("an entry goes before its end, or stays behind it, or goes without one")
	}
}

func ruleset() *dataplanev1.Ruleset {
	rule := func(r *dataplanev1.TokenRule, most time.Duration) *dataplanev1.TokenRule {
		r.ClockSkew, r.Expiration = durationpb.New(time.Minute), dataplanev1.TimeCheck_REQUIRED
		if most > 0 {
			r.MaxLifetime = durationpb.New(most)
		}
		return r
	}
	return &dataplanev1.Ruleset{
		Service:   "orders",
		Issuers:   []*dataplanev1.Issuer{{Name: "idp"}, {Name: "watchword"}},
		Consumers: []*dataplanev1.Consumer{{Name: "acme"}},
		CredentialSets: []*dataplanev1.CredentialSet{{Name: "apps", Credentials: []*dataplanev1.Credential{{Key: "k", Consumer: "app"}}},
			{Name: "self", Credentials: []*dataplanev1.Credential{{Key: "s", Service: "web"}}}},
		Routes: []*dataplanev1.Route{{Authentication: &dataplanev1.Authentication{Rules: []*dataplanev1.TokenRule{
			rule(&dataplanev1.TokenRule{Issuer: "watchword"}, time.Hour), rule(&dataplanev1.TokenRule{CredentialSet: "self"}, 2*time.Hour),
			rule(&dataplanev1.TokenRule{Issuer: "idp"}, 0), rule(&dataplanev1.TokenRule{CredentialSet: "apps"}, time.Minute),
		}}}},
	}
}

// What a service could not accept it is not told; equal entries give equal messages in
// whatever order they come; a second of clock error is added to times.
func TestCompile(t *testing.T) {
	entries := map[string]revocation.Entry{}
	for _, e := range []revocation.Entry{
		{Kind: revocation.Token, Issuer: "watchword", Value: "j2"}, {Kind: revocation.Token, Issuer: "watchword", Value: "j1"},
		{Kind: revocation.Token, Issuer: "watchword", Value: "j1", Audiences: []string{"orders"}},
		{Kind: revocation.Token, Issuer: "watchword", Value: "other", Audiences: []string{"billing"}},
		{Kind: revocation.Token, Issuer: "unknown", Value: "j1"},
		{Kind: revocation.Token, Issuer: "consumer/app", Value: "j1"}, {Kind: revocation.Token, Issuer: "consumer/none", Value: "j1"},
		{Kind: revocation.Instance, Issuer: "watchword", Value: "spiffe://mesh.local/shop/i1"},
		{Kind: revocation.Consumer, Value: "app"}, {Kind: revocation.Consumer, Value: "acme"}, {Kind: revocation.Consumer, Value: "nobody"},
		{Kind: revocation.Subject, Issuer: "idp", Value: "ann"}, {Kind: revocation.IssuedBefore, Issuer: "idp", Value: "ann", IssuedBefore: 50},
		{Kind: revocation.IssuedBefore, Issuer: "idp", Value: "bert", IssuedBefore: 50}, {Kind: revocation.IssuedBefore, Issuer: "idp", Value: "bert", IssuedBefore: 70, Audiences: []string{"orders"}},
		{Kind: revocation.IssuedBefore, Issuer: "idp", IssuedBefore: 40},
	} {
		e = entry(t, e)
		entries[e.ID] = e
	}
	want := &dataplanev1.Revocations{Service: "orders", Consumers: []string{"acme", "app"}, Issuers: []*dataplanev1.RevokedOfIssuer{
		{Issuer: "consumer/app", Tokens: []string{"j1"}},
		{Issuer: "idp", IssuedUntil: 41, Subjects: []*dataplanev1.RevokedSubject{{Subject: "ann"}, {Subject: "bert", IssuedUntil: 71}}},
		{Issuer: "watchword", Tokens: []string{"j1", "j2"}, Instances: []*dataplanev1.RevokedInstance{{Subject: "spiffe://mesh.local/shop", Instance: "i1"}}},
	}}
	accepted := revocation.AcceptedBy(ruleset())
	for range 20 { // of the orders that a map has
		if diff := cmp.Diff(want, revocation.Compile(accepted, maps.Values(entries)), protocmp.Transform()); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	}
	if got := revocation.Size(want); got != 9 {
		t.Errorf("Size is %d, want 9", got)
	}
	none := revocation.Compile(revocation.AcceptedBy(nil), maps.Values(entries))
	if !proto.Equal(none, &dataplanev1.Revocations{}) {
		t.Errorf("a service that accepts nothing gets %v", none)
	}
}

// How long an entry stays follows from the rules that accept its signer: the longest
// lifetime and skew of all, and no end where one has no bound.
func TestLifetime(t *testing.T) {
	all := slices.Values([]*dataplanev1.Ruleset{ruleset()})
	for signer, want := range map[string]time.Duration{"watchword": 2*time.Hour + time.Minute, "consumer/app": 2 * time.Minute, "idp": 0, "unknown": 0} {
		got, bounded := revocation.Lifetime(signer, all)
		if got != want || bounded != (want > 0) {
			t.Errorf("%s: %s, bounded %t; want %s", signer, got, bounded, want)
		}
	}
	if got, bounded := revocation.ConsumerLifetime("app", all); got != 2*time.Minute || !bounded {
		t.Errorf("a consumer: %s, %t; want 2m", got, bounded)
	}
	at := time.Unix(1_800_000_000, 0)
	if got, want := revocation.EndsAt(at, time.Hour), at.Add(time.Hour+5*time.Minute+2*time.Second); !got.Equal(want) {
		t.Errorf("it ends at %s, want %s", got, want)
	}
}
