package main

import (
	"fmt"
	"time"

	"github.com/fatih/color"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// explanation is the JSON and YAML form of explain.
type explanation struct {
	Revision     int64          `json:"revision"`
	Time         time.Time      `json:"time"`
	Allowed      bool           `json:"allowed"`
	Reason       string         `json:"reason,omitempty"`
	Rule         string         `json:"rule,omitempty"`
	Observed     string         `json:"observed,omitempty"`
	ObservedRule string         `json:"observedRule,omitempty"`
	Route        string         `json:"route,omitempty"`
	Caller       *explainCaller `json:"caller,omitempty"`
	Refusal      *explainAnswer `json:"refusal,omitempty"`
	Steps        []stepView     `json:"steps"`
	DataPlanes   []planeView    `json:"dataPlanes"`
}

type explainCaller struct {
	Issuer     string `json:"issuer,omitempty"`
	Iss        string `json:"iss,omitempty"`
	Subject    string `json:"subject,omitempty"`
	Service    string `json:"service,omitempty"`
	Consumer   string `json:"consumer,omitempty"`
	Credential string `json:"credential,omitempty"`
	Anonymous  bool   `json:"anonymous,omitempty"`
}

type explainAnswer struct {
	Status  int32             `json:"status"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`

	order []string
}

func explanationOf(r *adminv1.ExplainResponse) *explanation {
	out := &explanation{
		Revision: r.GetRevision(), Time: r.GetTime().AsTime(), Allowed: r.GetAllowed(), Reason: r.GetReason(), Rule: r.GetRule(),
		Observed: r.GetObserved(), ObservedRule: r.GetObservedRule(), Route: r.GetRoute(), DataPlanes: planeViews(r.GetDataPlanes()),
	}
	for _, s := range r.GetSteps() {
		out.Steps = append(out.Steps, stepView{s.GetName(), s.GetOutcome(), s.GetDetail()})
	}
	if c := r.GetCaller(); c != nil {
		out.Caller = &explainCaller{c.GetIssuer(), c.GetIss(), c.GetSubject(), c.GetService(), c.GetConsumer(), c.GetCredential(), c.GetAnonymous()}
	}
	if f := r.GetRefusal(); f != nil {
		out.Refusal = &explainAnswer{Status: f.GetStatus(), Body: f.GetBody(), Headers: map[string]string{}}
		for _, h := range f.GetHeaders() {
			out.Refusal.Headers[h.GetName()] = h.GetValue()
			out.Refusal.order = append(out.Refusal.order, h.GetName())
		}
	}
	return out
}

func (c *console) printExplanation(e *explanation) error {
	if ok, err := c.structured(e); ok {
		return err
	}
	c.printSteps("", e.Steps)
	fmt.Fprintln(c.out)
	c.printVerdict(e)
	c.printEnforcement(e)
	return nil
}

// printVerdict says what becomes of the request, and what the service or the
// caller gets.
func (c *console) printVerdict(e *explanation) {
	verdict := c.paint("allowed", color.FgGreen)
	if !e.Allowed {
		verdict = c.paint("refused", color.FgRed) + ": " + oneLine(withRule(e.Reason, e.Rule))
	}
	if e.Observed != "" {
		verdict += ", " + c.paint("observed", color.FgYellow) + ": " + oneLine(withRule(e.Observed, e.ObservedRule))
	}
	fmt.Fprintln(c.out, verdict)
	if e.Refusal == nil {
		c.list("the service gets the request, and with it", e.forwarded())
		return
	}
	lines := []string{fmt.Sprintf("status %d", e.Refusal.Status)}
	for _, name := range e.Refusal.order {
		lines = append(lines, name+": "+e.Refusal.Headers[name])
	}
	if e.Refusal.Body != "" {
		lines = append(lines, e.Refusal.Body)
	}
	c.list("the caller is told", lines)
	if e.Reason == string(reason.PathAmbiguous) {
		fmt.Fprintln(c.out, "An Envoy that Watchword manages makes paths plain first, or answers 400: explain the plain path to see what it would do.")
	}
}

func withRule(word, rule string) string {
	if rule == "" {
		return word
	}
	return word + " by rule " + rule
}

// forwarded are the steps that changed the request.
func (e *explanation) forwarded() []string {
	var lines []string
	for _, s := range e.Steps {
		if s.Name == "forward" {
			lines = append(lines, s.Outcome+" "+s.Detail)
		}
	}
	if len(lines) == 0 {
		lines = []string{"nothing is changed"}
	}
	return lines
}

func (c *console) list(title string, lines []string) {
	fmt.Fprintf(c.out, "%s:\n", title)
	for _, line := range lines {
		fmt.Fprintf(c.out, "  %s\n", oneLine(line))
	}
}

// printEnforcement says whether the data planes decide in that way, too.
func (c *console) printEnforcement(e *explanation) {
	var behind []planeView
	for _, p := range e.DataPlanes {
		if !p.InSync {
			behind = append(behind, p)
		}
	}
	at := fmt.Sprintf("revision %d", e.Revision)
	switch {
	case len(e.DataPlanes) == 0:
		fmt.Fprintf(c.out, "%s; no data plane of the service is connected\n", at)
	case len(behind) == 0:
		fmt.Fprintf(c.out, "%s; all data planes of the service are in sync (%d)\n", at, len(e.DataPlanes))
	default:
		fmt.Fprintf(c.out, "%s; %d of %s not in sync, which may decide in another way:\n", at, len(behind), count(len(e.DataPlanes), "data plane"))
		for _, p := range behind {
			fmt.Fprintf(c.out, "  %s\n", oneLine(fmt.Sprintf("%s has revision %d: %s", p.Node, p.Revision, p.why())))
		}
	}
}

// indent is what lists and tables below a title begin with.
const indent = "  "

// printSteps shows the steps of an evaluation below each other.
func (c *console) printSteps(before string, steps []stepView) {
	var rows [][]cell
	for _, s := range steps {
		rows = append(rows, plain(s.Name, s.Outcome, s.Detail))
	}
	c.tableAfter(before, []string{"STEP", "OUTCOME", "WHY"}, rows)
}
