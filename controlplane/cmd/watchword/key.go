package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newKeyCommand(o *options) *cobra.Command {
	return newGroup("key", "Look after the keys that tokens are signed with",
		newKeyStatusCommand(o), newKeyRotateCommand(o), newKeyRevokeCommand(o))
}

func newKeyStatusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show each signing key, what it signs for, and what it waits for",
		Long: `Shows the keys of the built-in issuer: the state of each, for how many audiences it
signs, what happens to it next and when, and who is missing before that. A key signs
for an audience as soon as all that verify its tokens have it; docs/rotation.md says
how to read this, and what to do about a data plane that holds a key back.`,
		Example: `  watchword key status
  watchword key status -o json`,
		Args: noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.ListSigningKeys(ctx, &adminv1.ListSigningKeysRequest{})
				if err != nil {
					return err
				}
				return o.console(cmd).printKeys(keysViewOf(response.GetSigningKeys()), time.Now())
			})
		},
	}
}

// keysView is the JSON and YAML form of the signing keys.
type keysView struct {
	Keys      []keyView  `json:"keys"`
	Active    string     `json:"active"`
	Audiences int32      `json:"audiences"`
	Behind    int32      `json:"behind"`
	Asked     *time.Time `json:"asked,omitempty"`
	Leader    string     `json:"leader,omitempty"`
	Full      bool       `json:"full,omitempty"`
}

type keyView struct {
	KID           string     `json:"kid"`
	Algorithm     string     `json:"algorithm"`
	State         string     `json:"state"`
	Created       *time.Time `json:"created,omitempty"`
	Activated     *time.Time `json:"activated,omitempty"`
	Unsigned      *time.Time `json:"unsigned,omitempty"`
	Audiences     []string   `json:"audiences,omitempty"`
	AudienceCount int32      `json:"audienceCount"`
	Next          string     `json:"next,omitempty"`
	Due           *time.Time `json:"due,omitempty"`
	Waits         []waitView `json:"waits,omitempty"`
	WaitCount     int32      `json:"waitCount"`
}

func keysViewOf(r *adminv1.SigningKeys) keysView {
	v := keysView{Keys: []keyView{}, Active: r.GetActive(), Audiences: r.GetAudiences(), Behind: r.GetBehind(), Asked: timeOf(r.GetAsked()), Leader: r.GetLeader(), Full: r.GetFull()}
	for _, k := range r.GetKeys() {
		next := ""
		if k.GetNext() != adminv1.SigningKey_EVENT_UNSPECIFIED {
			next = words(k.GetNext().String())
		}
		v.Keys = append(v.Keys, keyView{k.GetKid(), k.GetAlgorithm(), words(k.GetState().String()), timeOf(k.GetCreated()), timeOf(k.GetActivated()), timeOf(k.GetUnsigned()),
			k.GetAudiences(), k.GetAudienceCount(), next, timeOf(k.GetDue()), waitViews(k.GetWaits()), k.GetWaitCount()})
	}
	return v
}

// words is "hands over" of HANDS_OVER.
func words(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", " ")) }

// atOnce says that the next key takes over as soon as it may.
func (v keysView) atOnce() bool {
	return slices.ContainsFunc(v.Keys, func(k keyView) bool { return k.KID == v.Active && k.Next == "hands over" && k.Due == nil })
}

// standby is the key that is to sign next; nil if there is none.
func (v keysView) standby() *keyView {
	if i := slices.IndexFunc(v.Keys, func(k keyView) bool { return k.State == "standby" }); i >= 0 {
		return &v.Keys[i]
	}
	return nil
}

// shortKey is enough of a kid for people.
func shortKey(kid string) string { return oneLine(kid[:min(len(kid), 8)]) }

func (c *console) printKeys(v keysView, now time.Time) error {
	if ok, err := c.structured(v); ok {
		return err
	}
	var rows [][]cell
	for _, k := range v.Keys {
		if c.format == formatName {
			fmt.Fprintln(c.out, oneLine(k.KID))
			continue
		}
		row := plain(shortKey(k.KID), k.State, k.Algorithm, ageOf(k.Created, now), someOf(k.Audiences, int(k.AudienceCount)), v.next(k, now), k.waitsFor())
		row[1].color = stateColors[k.State]
		rows = append(rows, row)
	}
	if c.format == formatName {
		return nil
	}
	c.table([]string{"KID", "STATE", "ALG", "AGE", "SIGNS-FOR", "NEXT", "WAITS-FOR"}, rows)
	c.printWaits(v, now)
	if v.Full {
		fmt.Fprintf(c.err, "no next key: %d are published, which is the most; it is made when one goes\n", published(v))
	}
	if v.Leader == "" {
		fmt.Fprintln(c.err, "no replica leads now, so that no key changes; `watchword status` and /readyz of the replicas say more")
	}
	return nil
}

var stateColors = map[string][]color.Attribute{"active": {color.FgGreen}, "revoked": {color.FgRed}}

func published(v keysView) (n int) {
	for _, k := range v.Keys {
		if k.State != "revoked" {
			n++
		}
	}
	return n
}

// someOf is "orders, payments and 3 more".
func someOf(names []string, all int) string {
	const most = 2
	if len(names) == 0 {
		return ""
	}
	text := strings.Join(names[:min(len(names), most)], ", ")
	if more := max(all, len(names)) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// next is "signs in 58m".
func (v keysView) next(k keyView, now time.Time) string {
	switch {
	case k.Next == "":
		return ""
	case k.Due != nil && k.Due.After(now):
		return k.Next + " in " + age(now, *k.Due)
	case k.Due != nil:
		return k.Next + " when it may"
	case k.State == "standby" && !v.atOnce():
		return "signs when asked for"
	}
	return k.Next + " when it may"
}

// waitsFor is the first of whom something is waited for.
func (k keyView) waitsFor() string {
	if len(k.Waits) == 0 {
		return ""
	}
	text := k.Waits[0].who()
	if more := len(gathered(k.Waits)) - 1 + int(k.WaitCount) - len(k.Waits); more > 0 {
		text += fmt.Sprintf("; %d more below", more)
	}
	return text
}

// printWaits says of each key what it waits for. What is the same for many audiences is
// one line.
func (c *console) printWaits(v keysView, now time.Time) {
	var rows [][]cell
	cut := 0
	for _, k := range v.Keys {
		for _, g := range gathered(k.Waits) {
			ends := "no end"
			if g.Until != nil {
				ends = left(g.Until, now)
			}
			rows = append(rows, plain(shortKey(k.KID), someOf(g.audiences, len(g.audiences)), g.who(), g.replica(), g.why(), ends))
		}
		cut += int(k.WaitCount) - len(k.Waits)
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(c.out)
	c.table([]string{"KID", "AUDIENCE", "MISSING", "REPLICA", "WHY", "ENDS-IN"}, rows)
	if cut > 0 {
		fmt.Fprintf(c.out, "and %d more\n", cut)
	}
}

// gatheredWait is one wait of several audiences.
type gatheredWait struct {
	waitView
	audiences []string
}

func gathered(waits []waitView) []*gatheredWait {
	var out []*gatheredWait
	for _, w := range waits {
		i := slices.IndexFunc(out, func(g *gatheredWait) bool {
			return g.Replica == w.Replica && g.Service == w.Service && g.Why == w.Why && timeOrZero(g.Until).Equal(timeOrZero(w.Until))
		})
		if i < 0 {
			i = len(out)
			out = append(out, &gatheredWait{waitView: w})
		}
		if w.Audience != "" {
			out[i].audiences = append(out[i].audiences, w.Audience)
		}
	}
	return out
}
