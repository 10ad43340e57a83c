package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

type refusalsFlags struct {
	service            string
	enforced, observed bool
	sample             bool
}

func newRefusalsCommand(o *options) *cobra.Command {
	var flags refusalsFlags
	cmd := &cobra.Command{
		Use:   "refusals",
		Short: "Show what data planes refused, or would have refused, and why",
		Long: `Shows how many requests the data planes of each service refused, by caller and
reason, since the control plane started. A caller is there only if its token
could be verified. "observed" are requests that were let through, though a policy
with enforcement: OBSERVE would have refused them.

Managed Envoys report within about a second; Envoys that somebody else owns
do not report.`,
		Example: `  watchword refusals
  watchword refusals --service orders --observed
  watchword refusals --service orders --sample`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			con := o.console(cmd)
			if con.format == formatName {
				return usagef("refusals have no names; leave out -o, or use json or yaml")
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return printRefusals(ctx, c, con, &flags)
			})
		},
	}
	cmd.Flags().StringVar(&flags.service, "service", "", "only those of `SERVICE`")
	cmd.Flags().BoolVar(&flags.enforced, "enforced", false, "only requests that were refused")
	cmd.Flags().BoolVar(&flags.observed, "observed", false, "only requests that would have been refused")
	cmd.Flags().BoolVar(&flags.sample, "sample", false, "show the last requests one by one too, as far as they are kept")
	cmd.MarkFlagsMutuallyExclusive("enforced", "observed")
	must(cmd.RegisterFlagCompletionFunc("service", o.completeServices))
	return cmd
}

func (f *refusalsFlags) request() *adminv1.ListRefusalsRequest {
	request := &adminv1.ListRefusalsRequest{Service: f.service, Sample: f.sample}
	switch {
	case f.enforced:
		request.Enforcement = adminv1.Refusal_ENFORCED
	case f.observed:
		request.Enforcement = adminv1.Refusal_OBSERVED
	}
	return request
}

// refusalsReport is the JSON and YAML form of refusals.
type refusalsReport struct {
	Since    *time.Time         `json:"since,omitempty"`
	Refusals []refusalCountView `json:"refusals"`
	Sample   []refusalView      `json:"sample,omitempty"`
}

type refusalCountView struct {
	Service     string      `json:"service"`
	Caller      *callerView `json:"caller,omitempty"`
	Reason      string      `json:"reason"`
	Enforcement string      `json:"enforcement"`
	Count       int64       `json:"count"`
	LastSeen    time.Time   `json:"lastSeen"`
}

type refusalView struct {
	Time        time.Time   `json:"time"`
	Service     string      `json:"service"`
	Node        string      `json:"node"`
	Peer        string      `json:"peer,omitempty"`
	Route       string      `json:"route,omitempty"`
	Method      string      `json:"method,omitempty"`
	Path        string      `json:"path,omitempty"`
	Status      int32       `json:"status,omitempty"`
	Caller      *callerView `json:"caller,omitempty"`
	Reason      string      `json:"reason"`
	Rule        string      `json:"rule,omitempty"`
	Enforcement string      `json:"enforcement"`
}

// callerView is nil for a request without a token that could be verified.
type callerView struct {
	Consumer string `json:"consumer,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Other    bool   `json:"other,omitempty"`
}

func callerViewOf(c *adminv1.Refusal_Caller) *callerView {
	if c == nil {
		return nil
	}
	return &callerView{c.GetConsumer(), c.GetIssuer(), c.GetSubject(), c.GetOther()}
}

// name is the consumer, else the subject with its issuer: a subject alone
// names nobody.
func (c *callerView) name() string {
	switch {
	case c == nil:
		return ""
	case c.Other:
		return "(other)"
	case c.Consumer != "":
		return c.Consumer
	case c.Issuer == "":
		return c.Subject
	}
	return fmt.Sprintf("%s (%s)", c.Subject, c.Issuer)
}

func enforcementText(e adminv1.Refusal_Enforcement) string {
	switch e {
	case adminv1.Refusal_ENFORCED:
		return "enforced"
	case adminv1.Refusal_OBSERVED:
		return "observed"
	}
	return "unknown"
}

func printRefusals(ctx context.Context, c *client, con *console, flags *refusalsFlags) error {
	response, err := c.ListRefusals(ctx, flags.request())
	if err != nil {
		return err
	}
	report := refusalsReportOf(response)
	if ok, err := con.structured(report); ok {
		return err
	}
	con.printRefusals(report, time.Now())
	return nil
}

func refusalsReportOf(r *adminv1.ListRefusalsResponse) *refusalsReport {
	report := &refusalsReport{Refusals: []refusalCountView{}}
	if t := r.GetSince(); t != nil {
		at := t.AsTime()
		report.Since = &at
	}
	for _, c := range r.GetCounts() {
		report.Refusals = append(report.Refusals, refusalCountView{
			Service: c.GetService(), Caller: callerViewOf(c.GetCaller()), Reason: c.GetReason(),
			Enforcement: enforcementText(c.GetEnforcement()), Count: c.GetCount(), LastSeen: c.GetLastSeen().AsTime(),
		})
	}
	for _, f := range r.GetSample() {
		report.Sample = append(report.Sample, refusalView{
			Time: f.GetTime().AsTime(), Service: f.GetService(), Node: f.GetNode(), Peer: f.GetPeer(), Route: f.GetRoute(),
			Method: f.GetMethod(), Path: f.GetPath(), Status: f.GetStatus(), Caller: callerViewOf(f.GetCaller()),
			Reason: f.GetReason(), Rule: f.GetRule(), Enforcement: enforcementText(f.GetEnforcement()),
		})
	}
	return report
}

func (c *console) printRefusals(r *refusalsReport, now time.Time) {
	total := int64(0)
	var rows [][]cell
	for _, f := range r.Refusals {
		total += f.Count
		row := append(plain(f.Service, f.Caller.name(), f.Reason), enforcementCell(f.Enforcement))
		rows = append(rows, append(row, plain(fmt.Sprint(f.Count), age(f.LastSeen, now))...))
	}
	if len(rows) > 0 {
		c.table([]string{"SERVICE", "CALLER", "REASON", "ENFORCEMENT", "COUNT", "LAST-SEEN"}, rows)
		fmt.Fprintln(c.out)
	}
	if len(r.Sample) > 0 {
		c.table([]string{"AGE", "SERVICE", "NODE", "PEER", "ROUTE", "REQUEST", "STATUS", "CALLER", "REASON", "RULE", "ENFORCEMENT"}, sampleRows(r.Sample, now))
		fmt.Fprintln(c.out)
	}
	since := ""
	if r.Since != nil {
		since = fmt.Sprintf(" in %s", age(*r.Since, now))
	}
	fmt.Fprintf(c.out, "%s%s\n", count(int(total), "refusal"), since)
}

func sampleRows(sample []refusalView, now time.Time) [][]cell {
	var rows [][]cell
	for _, f := range sample {
		status := ""
		if f.Status != 0 {
			status = fmt.Sprint(f.Status)
		}
		row := plain(age(f.Time, now), f.Service, f.Node, f.Peer, f.Route, f.Method+" "+f.Path, status, f.Caller.name(), f.Reason, f.Rule)
		rows = append(rows, append(row, enforcementCell(f.Enforcement)))
	}
	return rows
}

// enforcementCell marks what did not refuse anybody.
func enforcementCell(e string) cell {
	if e == "observed" {
		return cell{e, []color.Attribute{color.FgYellow}}
	}
	return cell{text: e}
}
