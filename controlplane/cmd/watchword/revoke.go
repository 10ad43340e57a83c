package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newRevokeCommand(o *options) *cobra.Command {
	return newGroup("revoke", "Make all data planes refuse tokens that verify",
		newRevokeTokenCommand(o), newRevokeSubjectCommand(o), newRevokeConsumerCommand(o), newRevokeInstanceCommand(o), newRevokeIssuedBeforeCommand(o))
}

// revokeFlags are those of all forms.
type revokeFlags struct {
	audiences []string
	reason    string
	issuer    string
	waiting
}

func (o *options) addRevokeFlags(cmd *cobra.Command, f *revokeFlags, ofIssuer bool) {
	cmd.Flags().StringSliceVar(&f.audiences, "audience", nil, "only `SERVICE` refuses it; may be repeated. Default: every one that accepts the issuer")
	cmd.Flags().StringVar(&f.reason, "reason", "", "`TEXT` for the audit and the list")
	if ofIssuer {
		cmd.Flags().StringVar(&f.issuer, "issuer", "", "name of the `ISSUER`, or consumer/NAME. Default: watchword")
	}
	f.addFlags(cmd)
	must(cmd.RegisterFlagCompletionFunc("audience", o.completeServices))
}

func newRevokeTokenCommand(o *options) *cobra.Command {
	var f revokeFlags
	var file string
	cmd := &cobra.Command{
		Use:   "token [JTI]",
		Short: "Revoke one token",
		Long: `Revokes one token, by its jti, or by the whole token in a file: that is verified
first, and neither stored nor logged. A token is never an argument, where other users
of the machine could see it. On this command --token-file is the token to revoke; one
for the admin API is named by --admin-token-file.`,
		Example: `  watchword revoke token 3f1c9c5e-8d0b-4d52-9d1f-6f0a5f0c7e11
  watchword revoke token --token-file - --wait < token.jwt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := &adminv1.TokenToRevoke{Issuer: f.issuer}
			if (len(args) == 0) == (file == "") {
				return usagef("give either the jti of a token or --token-file")
			}
			if len(args) == 1 {
				if strings.Count(args[0], ".") == 2 && strings.HasPrefix(args[0], "eyJ") {
					return usagef("a whole token is no argument, where others could see it: give it with --token-file, and - for standard input")
				}
				what.Jti = args[0]
			} else {
				token, err := readToken(cmd.InOrStdin(), file)
				if err != nil {
					return err
				}
				what.Token = token
			}
			return o.runRevoke(cmd, &f, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Token{Token: what}})
		},
	}
	o.addRevokeFlags(cmd, &f, true)
	cmd.Flags().StringVar(&file, "token-file", "", "`FILE` with the whole token to revoke, or - for standard input")
	// As with explain: the variable of the name is that of the admin API's token.
	must(cmd.Flags().SetAnnotation("token-file", ownVariable, []string{""}))
	cmd.Flags().StringVar(&o.tokenFile, "admin-token-file", "", "`FILE` with a token for the admin API, which is --token-file of other commands")
	must(cmd.Flags().SetAnnotation("admin-token-file", ownVariable, []string{"WATCHWORD_TOKEN_FILE"}))
	must(cmd.MarkFlagFilename("token-file"))
	must(cmd.MarkFlagFilename("admin-token-file"))
	return cmd
}

func newRevokeSubjectCommand(o *options) *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "subject {SERVICE | SUB}",
		Short: "Revoke all tokens of a subject",
		Long: `Revokes all tokens that have a sub, those of later, too, until the revocation ends or
is deleted. The name of a service stands for its SPIFFE ID. If what was issued from now
on shall be accepted: ` + "`watchword revoke issued-before --subject`" + `.`,
		Example: `  watchword revoke subject frontend --wait
  watchword revoke subject alice --issuer corp --reason "left the company"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.runRevoke(cmd, &f, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Subject{Subject: &adminv1.SubjectToRevoke{Subject: args[0], Issuer: f.issuer}}})
		},
	}
	o.addRevokeFlags(cmd, &f, true)
	return cmd
}

func newRevokeConsumerCommand(o *options) *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:     "consumer NAME",
		Short:   "Revoke all tokens of a consumer",
		Long:    `Revokes all tokens by which somebody is a Consumer, whoever has signed them.`,
		Example: `  watchword revoke consumer acme --wait`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.runRevoke(cmd, &f, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: args[0]}})
		},
	}
	o.addRevokeFlags(cmd, &f, false)
	return cmd
}

func newRevokeInstanceCommand(o *options) *cobra.Command {
	var f revokeFlags
	cmd := &cobra.Command{
		Use:   "instance SERVICE/INSTANCE",
		Short: "Revoke all tokens of an instance",
		Long: `Revokes all tokens that an instance of a service has got. Its enrolment stays: end
that first, with ` + "`watchword instance revoke`" + `.`,
		Example: `  watchword revoke instance orders/kq3v6c7dwyzaevb5mz2ggqzlxi --wait`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, instance, ok := strings.Cut(args[0], "/")
			if !ok {
				return usagef("the instance is named as SERVICE/INSTANCE")
			}
			return o.runRevoke(cmd, &f, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Instance{Instance: &adminv1.InstanceToRevoke{Service: service, Instance: instance}}})
		},
	}
	o.addRevokeFlags(cmd, &f, false)
	return cmd
}

func newRevokeIssuedBeforeCommand(o *options) *cobra.Command {
	var f revokeFlags
	var subject string
	cmd := &cobra.Command{
		Use:   "issued-before [TIME]",
		Short: "Revoke all that was issued until a time",
		Long: `Revokes all tokens of an issuer, or of one subject, that were issued until a time
(RFC 3339; default: now), and those that do not say when they were. Clocks may be off by
a second, so what was issued in the second after it is refused, too.`,
		Example: `  watchword revoke issued-before --subject frontend --wait
  watchword revoke issued-before 2026-03-01T12:00:00Z --issuer corp`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := &adminv1.IssuedBefore{Issuer: f.issuer, Subject: subject}
			if len(args) == 1 {
				at, err := time.Parse(time.RFC3339, args[0])
				if err != nil {
					return usagef("%q is no time such as 2026-03-01T12:00:00Z", args[0])
				}
				what.Time = timestamppb.New(at)
			}
			return o.runRevoke(cmd, &f, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_IssuedBefore{IssuedBefore: what}})
		},
	}
	o.addRevokeFlags(cmd, &f, true)
	cmd.Flags().StringVar(&subject, "subject", "", "only those of `SUB`, or of the service of that name")
	return cmd
}

// revokeReport is the JSON and YAML form of what was revoked.
type revokeReport struct {
	ID         string              `json:"id"`
	Revision   int64               `json:"revision"`
	Services   []string            `json:"services"`
	Warnings   []string            `json:"warnings,omitempty"`
	Revocation *tokenRevocation    `json:"revocation,omitempty"`
	Sync       *syncReport         `json:"sync,omitempty"`
	Receipt    []revocationReceipt `json:"receipt,omitempty"`
}

// revocationReceipt is one data plane that enforces a revocation, or not yet.
type revocationReceipt struct {
	Service  string `json:"service"`
	Node     string `json:"node"`
	Revision int64  `json:"revision"`
	InSync   bool   `json:"inSync"`
	// Millis from the call to the ACK, as far as this client has seen it.
	Millis int64  `json:"millis"`
	Why    string `json:"why,omitempty"`
}

func (o *options) runRevoke(cmd *cobra.Command, f *revokeFlags, request *adminv1.RevokeRequest) error {
	request.Audiences, request.Reason = f.audiences, f.reason
	return o.withClient(cmd, func(ctx context.Context, c *client) error {
		con, began := o.console(cmd), time.Now()
		response, err := c.Revoke(ctx, request)
		if err != nil {
			return err
		}
		view := tokenRevocationOf(response.GetRevocation())
		report := &revokeReport{ID: response.GetId(), Revision: response.GetRevision(), Services: append([]string{}, response.GetServices()...), Warnings: response.GetWarnings(), Revocation: &view}
		for _, w := range report.Warnings {
			fmt.Fprintln(con.err, "warning: "+oneLine(w))
		}
		if con.format == formatTable || con.format == formatName {
			con.did("revocation", report.ID, fmt.Sprintf("stored at revision %d, for %s", report.Revision, count(len(report.Services), "service")))
		}
		return c.receipt(ctx, con, report, &f.waiting, began)
	})
}

// receipt waits, if it was asked to, and says which data planes enforce it.
func (c *client) receipt(ctx context.Context, con *console, report *revokeReport, w *waiting, began time.Time) error {
	var failed error
	if w.wait && len(report.Services) > 0 {
		report.Sync, failed = c.waitInSync(ctx, con, &changeReport{Revision: report.Revision, services: report.Services}, w.timeout)
		elapsed := time.Since(began).Milliseconds()
		for _, service := range report.Services {
			planes, err := c.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{Service: service})
			if err != nil {
				break // who may revoke may not see them all; what is known of the wait stands
			}
			for _, p := range planes.GetDataPlanes() {
				report.Receipt = append(report.Receipt, revocationReceipt{p.GetService(), p.GetNode(), p.GetRevision(), p.GetInSync() && p.GetRevision() >= report.Revision, elapsed, p.GetReason()})
			}
		}
	}
	if con.format == formatTable && report.Sync != nil {
		var rows [][]cell
		for _, r := range report.Receipt {
			state := "enforced"
			if !r.InSync {
				state = "not in sync"
			}
			rows = append(rows, plain(r.Service, r.Node, fmt.Sprint(r.Revision), fmt.Sprintf("%d ms", r.Millis), state, r.Why))
		}
		if len(rows) > 0 {
			con.table([]string{"SERVICE", "DATA-PLANE", "REVISION", "WITHIN", "STATE", "WHY"}, rows)
		}
		if failed == nil {
			fmt.Fprintln(con.out, report.Sync.text(report.Revision))
		}
	}
	if _, err := con.structured(report); err != nil {
		return err
	}
	return failed
}
