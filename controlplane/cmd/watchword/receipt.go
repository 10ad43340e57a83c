package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// confirmedView is the JSON and YAML form of a data plane that has a revision.
type confirmedView struct {
	Node     string `json:"node"`
	Service  string `json:"service"`
	Instance string `json:"instance,omitempty"`
	Replica  string `json:"replica,omitempty"`
	// Since the revision was asked for; 0 for one that had nothing to confirm.
	Millis int64 `json:"millis"`
}

// waitView is the JSON and YAML form of what is waited for, or not known.
type waitView struct {
	Audience string     `json:"audience,omitempty"`
	Replica  string     `json:"replica,omitempty"`
	Host     string     `json:"host,omitempty"`
	Service  string     `json:"service,omitempty"`
	Count    int32      `json:"count,omitempty"`
	Gone     int32      `json:"gone,omitempty"`
	Who      []string   `json:"who,omitempty"`
	Why      string     `json:"why"`
	Detail   string     `json:"detail,omitempty"`
	Until    *time.Time `json:"until,omitempty"`
}

func confirmedViews(list []*adminv1.Confirmed) []confirmedView {
	var views []confirmedView
	for _, c := range list {
		views = append(views, confirmedView{c.GetNode(), c.GetService(), c.GetInstance(), c.GetReplica(), c.GetElapsed().AsDuration().Milliseconds()})
	}
	slices.SortStableFunc(views, func(a, b confirmedView) int {
		return cmp.Or(cmp.Compare(b.Millis, a.Millis), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Node, b.Node))
	})
	return views
}

func waitViews(list []*adminv1.Wait) []waitView {
	var views []waitView
	for _, w := range list {
		views = append(views, waitView{w.GetAudience(), w.GetReplica(), w.GetHost(), w.GetService(), w.GetCount(), w.GetGone(), w.GetWho(), w.GetWhy(), w.GetDetail(), timeOf(w.GetUntil())})
	}
	return views
}

// who is "node-7 (kq3v6c7d) of payments and 2 more", or the replica.
func (w waitView) who() string {
	all := int(w.Count + w.Gone)
	switch {
	case w.Service == "" && w.Replica == "":
		return "readers of the JWKS endpoint"
	case w.Service == "":
		return "replica " + w.replica()
	case len(w.Who) == 0:
		return fmt.Sprintf("%s of %s", count(all, "data plane"), w.Service)
	}
	text := w.Who[0] + " of " + w.Service
	if more := max(all, len(w.Who)) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// replica is the ID, cut short, with the host that people know it by.
func (w waitView) replica() string {
	switch {
	case w.Replica == "":
		return ""
	case w.Host == "":
		return shortReplica(w.Replica)
	}
	return fmt.Sprintf("%s (%s)", shortReplica(w.Replica), w.Host)
}

// why is the reason, with what the first data plane says.
func (w waitView) why() string {
	if w.Detail == "" {
		return w.Why
	}
	return w.Why + ": " + w.Detail
}

func shortReplica(id string) string { return id[:min(len(id), 8)] }

// mostReceiptRows is how many data planes a receipt names for reading: those that took
// longest. As JSON it has them all.
const mostReceiptRows = 100

// waitForReceipt waits until the data planes of some services have a revision, and
// prints who confirmed, how long after it was asked for, and of whom it is not known.
// It is for what must be known to be in force. The report is there also beside an
// error.
func (c *client) waitForReceipt(ctx context.Context, con *console, revision int64, services []string, timeout time.Duration) (*syncReport, error) {
	report, err := c.waitFor(ctx, con, &adminv1.WaitInSyncRequest{Revision: revision, Services: services, Receipt: true}, timeout)
	if con.format == formatTable {
		con.printReceipt(revision, report)
		if err == nil {
			fmt.Fprintln(con.out, report.text(revision))
		}
	}
	return report, err
}

func (c *console) printReceipt(revision int64, r *syncReport) {
	if len(r.Confirmed) > 0 {
		var rows [][]cell
		for _, p := range r.Confirmed[:min(len(r.Confirmed), mostReceiptRows)] {
			rows = append(rows, plain(p.Node, p.Service, shortReplica(p.Replica), fmt.Sprint(revision), fmt.Sprint(p.Millis)))
		}
		c.table([]string{"DATA-PLANE", "SERVICE", "REPLICA", "REVISION", "MS"}, rows)
		if more := len(r.Confirmed) - len(rows); more > 0 {
			fmt.Fprintf(c.out, "and %d more, which were faster; -o json has them all\n", more)
		}
	}
	c.printUnknown(r.Unknown)
}

// printUnknown says who may go on by what was before, why, and for how long.
func (c *console) printUnknown(list []waitView) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(c.out, "not known, and not waited for:")
	var rows [][]cell
	for _, w := range list {
		rows = append(rows, plain(w.who(), w.replica(), w.why(), until(w.Until)))
	}
	c.table([]string{"WHO", "REPLICA", "WHY", "UNTIL"}, rows)
}

// until is a time of day for what ends soon; what does not end by itself says so.
func until(t *time.Time) string {
	if t == nil {
		return "no end"
	}
	return strings.TrimSuffix(t.UTC().Format(time.RFC3339), "Z") + "Z"
}
