package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

const (
	// wholeKey is how long a kid is: a SHA-256 thumbprint in base64url.
	wholeKey = 43
	// shortestKey is the least of a kid that may stand for it.
	shortestKey = 4
	// wordForAll has to be typed before everything is revoked.
	wordForAll = "revoke all"
)

func newKeyRevokeCommand(o *options) *cobra.Command {
	var w waiting
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "revoke {KID | --all}",
		Short: "Take a signing key out of use at once",
		Long: `Takes a signing key out of use in one transaction: what it has signed is refused by each
data plane from when that has confirmed it. If the key signs, the next one takes over;
usually all that verify tokens have it already, and callers that ask for another token
once see no failure. The first characters of a kid are enough, 4 or more, if there is
one alone that begins so; one that begins with - comes behind --.

With --wait it returns when all data planes have confirmed, and prints a receipt: who,
and how long after; then of whom it is not known, why, and until when.

--all is for the case that somebody may have all keys: a replica, or the key-encryption
key, was stolen. No data plane has the key that signs then, so valid tokens are refused
until they have; it says what that is before it does it.`,
		Example: `  watchword key revoke 9fXaQQ12 --wait
  watchword key revoke --yes -- -fXaQQ12
  watchword key revoke --all --wait`,
		ValidArgsFunction: o.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) || len(args) > 1 {
				return usagef("name one key to revoke, or say --all; `watchword key status -o name` has their IDs")
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				r := &keyRevocation{c, o.console(cmd), &w}
				if all {
					return r.all(ctx, func(cost string) error { return confirmWord(cmd, yes, cost, wordForAll) })
				}
				return r.one(ctx, args[0], func(what string) error { return confirm(cmd, yes, what) })
			})
		},
	}
	w.addFlags(cmd)
	cmd.Flags().Lookup("wait").Usage = "return when all data planes have confirmed, and print the receipt"
	cmd.Flags().BoolVar(&all, "all", false, "every signing key there is")
	// The variable of apply --all must not be heard here.
	must(cmd.Flags().SetAnnotation("all", ownVariable, []string{""}))
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// keyRevocation is one call of the command.
type keyRevocation struct {
	*client
	con *console
	w   *waiting
}

// keyRevocationView is the JSON and YAML form of a revocation.
type keyRevocationView struct {
	Revision int64       `json:"revision"`
	Revoked  []string    `json:"revoked"`
	Active   string      `json:"active"`
	Services []string    `json:"services,omitempty"`
	Sync     *syncReport `json:"sync,omitempty"`
}

func (r *keyRevocation) one(ctx context.Context, prefix string, confirm func(string) error) error {
	response, err := r.ListSigningKeys(ctx, &adminv1.ListSigningKeysRequest{})
	if err != nil {
		return err
	}
	keys := keysViewOf(response.GetSigningKeys())
	key, err := keys.find(prefix)
	if err != nil {
		return err
	}
	if err := confirm(keys.costOf(key)); err != nil {
		return err
	}
	return r.revoke(ctx, &adminv1.RevokeSigningKeyRequest{Kid: key.KID})
}

// find is the key that begins so.
func (v keysView) find(prefix string) (keyView, error) {
	if len(prefix) < shortestKey {
		return keyView{}, usagef("%q is too little of a key: give %d characters of it at least; `watchword key status -o name` has the whole IDs", prefix, shortestKey)
	}
	var found []keyView
	var names []string
	for _, k := range v.Keys {
		if strings.HasPrefix(k.KID, prefix) {
			found, names = append(found, k), append(names, oneLine(k.KID))
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return keyView{}, &failure{code: exitFailed, err: fmt.Errorf("%q is the beginning of several keys: %s", prefix, strings.Join(names, ", ")), hint: "give the whole ID"}
	case len(prefix) == wholeKey:
		return keyView{KID: prefix}, nil // made meanwhile, or long gone: the control plane says so
	}
	return keyView{}, &failure{code: exitFailed, err: fmt.Errorf("there is no signing key %q, and none was revoked", prefix), hint: "`watchword key status` lists those that there are"}
}

// costOf says what it means to revoke a key.
func (v keysView) costOf(k keyView) string {
	text := fmt.Sprintf("this revokes signing key %s: tokens that it has signed are refused everywhere", shortKey(k.KID))
	if k.KID != v.Active {
		return text
	}
	next := v.standby()
	switch {
	case next == nil:
		return text + ", and so is what the key signs that is made then, at each data plane until that has it"
	case len(next.Waits) > 0:
		return fmt.Sprintf("%s, and %s takes over, which not all that verify have yet: missing is %s", text, shortKey(next.KID), oneLine(next.waitsFor()))
	}
	return fmt.Sprintf("%s, and %s takes over, which all that verify have", text, shortKey(next.KID))
}

func (r *keyRevocation) all(ctx context.Context, confirm func(string) error) error {
	planes, err := r.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{})
	if err != nil {
		return err
	}
	services := map[string]bool{}
	for _, p := range planes.GetDataPlanes() {
		services[p.GetService()] = true
	}
	cost := fmt.Sprintf("this revokes every signing key. No data plane has the key that signs then: %s of %s that this replica knows of, and those of others, refuse valid tokens until each has confirmed, and all callers have to fetch new tokens",
		count(len(planes.GetDataPlanes()), "data plane"), count(len(services), "service"))
	if err := confirm(cost); err != nil {
		return err
	}
	return r.revoke(ctx, &adminv1.RevokeSigningKeyRequest{All: true})
}

func (r *keyRevocation) revoke(ctx context.Context, request *adminv1.RevokeSigningKeyRequest) error {
	response, err := r.RevokeSigningKey(ctx, request)
	if err != nil {
		return err
	}
	view := keyRevocationView{Revision: response.GetRevision(), Revoked: append([]string{}, response.GetRevoked()...), Active: response.GetActive(), Services: response.GetServices()}
	r.say(view, request)
	var failed error
	if r.w.wait {
		view.Sync, failed = r.waitForReceipt(ctx, r.con, view.Revision, view.Services, r.w.timeout)
	}
	if _, err := r.con.structured(view); err != nil {
		return err
	}
	return failed
}

func (r *keyRevocation) say(v keyRevocationView, request *adminv1.RevokeSigningKeyRequest) {
	switch r.con.format {
	case formatName, formatTable:
	default:
		return
	}
	for _, kid := range v.Revoked {
		r.con.did("signing key", kid, "revoked")
	}
	if r.con.format == formatName {
		return
	}
	if len(v.Revoked) == 0 {
		r.con.did("signing key", request.GetKid(), "was revoked before")
	}
	fmt.Fprintf(r.con.out, "revision %d; signing key %s signs now\n", v.Revision, oneLine(v.Active))
	if !r.w.wait {
		fmt.Fprintf(r.con.err, "the data planes of %s have to confirm it; with --wait this command says when they have\n", count(len(v.Services), "service"))
	}
}

// confirmWord asks for a word before what costs a lot. Where nobody can be asked, --yes
// has to say it.
func confirmWord(cmd *cobra.Command, yes bool, what, word string) error {
	switch {
	case yes:
		return nil
	case !isTerminal(cmd.InOrStdin()) || !isTerminal(cmd.ErrOrStderr()):
		return usagef("%s; say so with --yes", what)
	}
	return askWord(cmd.InOrStdin(), cmd.ErrOrStderr(), what, word)
}

func askWord(in io.Reader, out io.Writer, what, word string) error {
	fmt.Fprintf(out, "%s.\nType %q to go on: ", what, word)
	answer, _ := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(answer) == word {
		return nil
	}
	return &failure{code: exitFailed, err: errors.New("not confirmed; nothing was changed")}
}

func (o *options) completeKeys(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.completeIDs(cmd, args, prefix, func(ctx context.Context, c *client) (ids []string, err error) {
		response, err := c.ListSigningKeys(ctx, &adminv1.ListSigningKeysRequest{})
		for _, k := range response.GetSigningKeys().GetKeys() {
			if k.GetState() != adminv1.SigningKey_REVOKED {
				ids = append(ids, k.GetKid())
			}
		}
		return slices.Sorted(slices.Values(ids)), err
	})
}
