package revocation

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Accepted is whose tokens the rules of one service accept. It doesn't change.
type Accepted struct {
	service   string
	signers   map[string]bool
	consumers map[string]bool
}

// AcceptedBy finds that out; nil accepts nothing.
func AcceptedBy(rs *dataplanev1.Ruleset) Accepted {
	a := Accepted{service: rs.GetService(), signers: map[string]bool{}, consumers: map[string]bool{}}
	for _, is := range rs.GetIssuers() {
		a.signers[is.GetName()] = true
	}
	for _, c := range rs.GetConsumers() {
		a.consumers[c.GetName()] = true
	}
	for _, set := range rs.GetCredentialSets() {
		for _, c := range set.GetCredentials() {
			if c.GetService() != "" {
				a.signers[BuiltinIssuer] = true
				continue
			}
			a.signers[consumerSigner+c.GetConsumer()] = true
			a.consumers[c.GetConsumer()] = true
		}
	}
	for _, r := range rs.GetRoutes() {
		for _, rule := range r.GetAuthentication().GetRules() {
			for _, c := range rule.GetConsumers() {
				a.consumers[c.GetConsumer()] = true
			}
		}
	}
	return a
}

const consumerSigner = "consumer/"

// Concerns tells whether the service has to enforce an entry.
func (a Accepted) Concerns(e Entry) bool {
	if !e.For(a.service) {
		return false
	}
	if e.Kind == Consumer {
		return a.consumers[e.Value]
	}
	return a.signers[e.Issuer]
}

// Count is how many of the entries the service has to enforce.
func (a Accepted) Count(entries iter.Seq[Entry]) int {
	n := 0
	for e := range entries {
		if a.Concerns(e) {
			n++
		}
	}
	return n
}

// Compile makes of the entries what the data planes of the service enforce.
func Compile(a Accepted, entries iter.Seq[Entry]) *dataplanev1.Revocations {
	out := &dataplanev1.Revocations{Service: a.service}
	issuers := map[string]*dataplanev1.RevokedOfIssuer{}
	subjects := map[[2]string]int64{}
	for e := range entries {
		if !a.Concerns(e) {
			continue
		}
		if e.Kind == Consumer {
			out.Consumers = append(out.Consumers, e.Value)
			continue
		}
		of := issuers[e.Issuer]
		if of == nil {
			of = &dataplanev1.RevokedOfIssuer{Issuer: e.Issuer}
			issuers[e.Issuer] = of
		}
		until := e.IssuedBefore + int64(ClockError/time.Second)
		switch {
		case e.Kind == Token:
			of.Tokens = append(of.Tokens, e.Value)
		case e.Kind == Instance:
			if id, err := identity.Parse(e.Value); err == nil {
				subject := identity.ID{TrustDomain: id.TrustDomain, Service: id.Service}.String()
				of.Instances = append(of.Instances, &dataplanev1.RevokedInstance{Subject: subject, Instance: id.Instance})
			}
		case e.Kind == Subject:
			subjects[[2]string{e.Issuer, e.Value}] = 0
		case e.Value == "":
			of.IssuedUntil = max(of.IssuedUntil, until)
		default:
			key := [2]string{e.Issuer, e.Value}
			if known, ok := subjects[key]; !ok || known != 0 && known < until {
				subjects[key] = until
			}
		}
	}
	for key, until := range subjects {
		issuers[key[0]].Subjects = append(issuers[key[0]].Subjects, &dataplanev1.RevokedSubject{Subject: key[1], IssuedUntil: until})
	}
	for _, name := range slices.Sorted(maps.Keys(issuers)) {
		of := issuers[name]
		of.Tokens = sorted(of.Tokens)
		slices.SortFunc(of.Instances, func(a, b *dataplanev1.RevokedInstance) int {
			return cmp.Or(cmp.Compare(a.GetInstance(), b.GetInstance()), cmp.Compare(a.GetSubject(), b.GetSubject()))
		})
		of.Instances = slices.CompactFunc(of.Instances, func(a, b *dataplanev1.RevokedInstance) bool {
			return a.GetInstance() == b.GetInstance() && a.GetSubject() == b.GetSubject()
		})
		slices.SortFunc(of.Subjects, func(a, b *dataplanev1.RevokedSubject) int { return cmp.Compare(a.GetSubject(), b.GetSubject()) })
		out.Issuers = append(out.Issuers, of)
	}
	out.Consumers = sorted(out.Consumers)
	return out
}

// sorted: an entry for some services, and one for all, may be about the same.
func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// Lifetime is how long after its issue a token of a signer may be accepted by one of
// the rulesets, clock skew included; false is that there is no bound.
func Lifetime(signer string, rulesets iter.Seq[*dataplanev1.Ruleset]) (most time.Duration, bounded bool) {
	return lifetime(rulesets, func(rs *dataplanev1.Ruleset, rule *dataplanev1.TokenRule) bool {
		if rule.GetCredentialSet() == "" {
			return rule.GetIssuer() == signer
		}
		return slices.ContainsFunc(credentials(rs, rule), func(c *dataplanev1.Credential) bool {
			return c.GetService() != "" && signer == BuiltinIssuer || consumerSigner+c.GetConsumer() == signer
		})
	})
}

// ConsumerLifetime is Lifetime for the tokens of a consumer.
func ConsumerLifetime(consumer string, rulesets iter.Seq[*dataplanev1.Ruleset]) (most time.Duration, bounded bool) {
	return lifetime(rulesets, func(rs *dataplanev1.Ruleset, rule *dataplanev1.TokenRule) bool {
		return slices.ContainsFunc(rule.GetConsumers(), func(c *dataplanev1.ConsumerMatch) bool { return c.GetConsumer() == consumer }) ||
			slices.ContainsFunc(credentials(rs, rule), func(c *dataplanev1.Credential) bool { return c.GetConsumer() == consumer })
	})
}

func credentials(rs *dataplanev1.Ruleset, rule *dataplanev1.TokenRule) []*dataplanev1.Credential {
	for _, set := range rs.GetCredentialSets() {
		if set.GetName() == rule.GetCredentialSet() {
			return set.GetCredentials()
		}
	}
	return nil
}

// Skew is how long after its exp a token of a signer may be accepted; false is that a
// rule doesn't look at exp.
func Skew(signer string, rulesets iter.Seq[*dataplanev1.Ruleset]) (most time.Duration, checked bool) {
	checked = true
	for rs := range rulesets {
		for _, r := range rs.GetRoutes() {
			for _, rule := range r.GetAuthentication().GetRules() {
				if rule.GetIssuer() == signer {
					most = max(most, rule.GetClockSkew().AsDuration())
					checked = checked && rule.GetExpiration() != dataplanev1.TimeCheck_NOT_CHECKED
				}
			}
		}
	}
	return most, checked
}

func lifetime(rulesets iter.Seq[*dataplanev1.Ruleset], is func(*dataplanev1.Ruleset, *dataplanev1.TokenRule) bool) (most time.Duration, bounded bool) {
	found := false
	for rs := range rulesets {
		for _, r := range rs.GetRoutes() {
			for _, rule := range r.GetAuthentication().GetRules() {
				if !is(rs, rule) {
					continue
				}
				found = true
				if rule.GetMaxLifetime() == nil || rule.GetExpiration() != dataplanev1.TimeCheck_REQUIRED {
					return 0, false
				}
				most = max(most, rule.GetMaxLifetime().AsDuration()+rule.GetClockSkew().AsDuration())
			}
		}
	}
	return most, found
}

// EndsAt is when an entry may go whose tokens are accepted for so long after their issue.
func EndsAt(now time.Time, lifetime time.Duration) time.Time {
	return now.Add(Spread + lifetime + 2*ClockError).UTC().Truncate(time.Second)
}

// Size is how many entries there are.
func Size(r *dataplanev1.Revocations) int {
	n := len(r.GetConsumers())
	for _, of := range r.GetIssuers() {
		n += len(of.GetTokens()) + len(of.GetInstances()) + len(of.GetSubjects())
		if of.GetIssuedUntil() != 0 {
			n++
		}
	}
	return n
}
