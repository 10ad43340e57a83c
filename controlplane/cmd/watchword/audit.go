package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// largestAuditPage is how many entries one answer has at most.
const largestAuditPage = 1000

func newAuditCommand(o *options) *cobra.Command {
	request, limit := &adminv1.ListAuditRequest{}, 0
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and who was refused",
		Long: `Shows what was written, and the attempts that were refused, the newest first: when,
who, from where, by which call, and what it was about. There is no secret in it.`,
		Example: `  watchword audit
  watchword audit --refused --limit 20
  watchword audit --actor service:deployer -o json`,
		Args: noArguments("; name who it was with --actor"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef("--limit %d: want more than 0", limit)
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				report, err := readAudit(ctx, c, request, limit)
				if err != nil {
					return err
				}
				return o.console(cmd).printAudit(report)
			})
		},
	}
	cmd.Flags().StringVar(&request.Actor, "actor", "", "only what `ACTOR` did, such as unix:root or service:deployer")
	cmd.Flags().BoolVar(&request.Refused, "refused", false, "only attempts that were refused")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most")
	cmd.Flags().StringVar(&request.Before, "before", "", "only what was before the entry with this `ID`")
	return cmd
}

// auditReport is the JSON and YAML form of the audit.
type auditReport struct {
	Entries []auditView `json:"entries"`
	// The value of --before that goes on; empty at the end.
	Next string `json:"next,omitempty"`
}

type auditView struct {
	ID       string     `json:"id"`
	Time     *time.Time `json:"time,omitempty"`
	Actor    string     `json:"actor"`
	Source   string     `json:"source,omitempty"`
	Method   string     `json:"method"`
	Outcome  string     `json:"outcome"`
	Subjects []string   `json:"subjects,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Count    int64      `json:"count,omitempty"`
	Revision int64      `json:"revision,omitempty"`
}

func auditViewOf(e *adminv1.AuditEntry) auditView {
	v := auditView{ID: e.GetId(), Time: timeOf(e.GetTime()), Actor: e.GetActor(), Source: e.GetSource(), Method: e.GetMethod(), Outcome: "unknown",
		Subjects: e.GetSubjects(), Reason: e.GetReason(), Count: e.GetCount(), Revision: e.GetRevision()}
	switch e.GetOutcome() {
	case adminv1.AuditEntry_DONE:
		v.Outcome = "done"
	case adminv1.AuditEntry_REFUSED:
		v.Outcome = "refused"
	}
	return v
}

// readAudit follows the pages up to the limit. A page can be short, or empty,
// although there are more.
func readAudit(ctx context.Context, c *client, request *adminv1.ListAuditRequest, limit int) (*auditReport, error) {
	report := &auditReport{Entries: []auditView{}}
	for len(report.Entries) < limit {
		request.Limit = int32(min(limit-len(report.Entries), largestAuditPage))
		response, err := c.ListAudit(ctx, request)
		if err != nil {
			return nil, err
		}
		if len(response.GetEntries()) > int(request.GetLimit()) || response.GetNext() != "" && response.GetNext() == request.GetBefore() {
			return nil, errors.New("the control plane sent another page of the audit than it was asked for")
		}
		for _, e := range response.GetEntries() {
			report.Entries = append(report.Entries, auditViewOf(e))
		}
		if request.Before = response.GetNext(); request.GetBefore() == "" {
			break
		}
	}
	report.Next = request.GetBefore()
	return report, nil
}

func (c *console) printAudit(r *auditReport) error {
	if ok, err := c.structured(r); ok {
		return err
	}
	if c.format == formatName {
		for _, e := range r.Entries {
			fmt.Fprintln(c.out, oneLine(e.ID))
		}
		return nil
	}
	if len(r.Entries) == 0 {
		fmt.Fprintln(c.err, "no entries")
		return nil
	}
	var rows [][]cell
	for _, e := range r.Entries {
		rows = append(rows, e.row())
	}
	c.table([]string{"TIME", "ACTOR", "SOURCE", "METHOD", "OUTCOME", "REVISION", "ABOUT"}, rows)
	if r.Next != "" {
		fmt.Fprintf(c.err, "there are older ones: --before %s\n", oneLine(r.Next))
	}
	return nil
}

func (e auditView) row() []cell {
	at, revision := "", ""
	if e.Time != nil {
		at = e.Time.UTC().Format(time.RFC3339)
	}
	if e.Revision != 0 {
		revision = fmt.Sprint(e.Revision)
	}
	row := append(plain(at, e.Actor, e.Source, e.Method), e.outcome())
	return append(row, plain(revision, e.about())...)
}

// about is what it was about, and why it was refused. It is as long as it likes,
// so it is in the last column, which makes no other row longer.
func (e auditView) about() string {
	text := strings.Join(e.Subjects, ", ")
	switch {
	case e.Outcome != "refused" || e.Reason == "":
		return text
	case text == "":
		return e.Reason
	}
	return text + ": " + e.Reason
}

// outcome says of a refusal how often.
func (e auditView) outcome() cell {
	if e.Outcome != "refused" {
		return cell{text: e.Outcome}
	}
	text := e.Outcome
	if e.Count > 1 {
		text += fmt.Sprintf(" %d times", e.Count)
	}
	return cell{text, []color.Attribute{color.FgRed}}
}
