package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// refusals asks what the Envoys of a service have reported, until what is wanted
// is among it: they report within about a second.
type refusals struct {
	service, enforcement string
	want                 []string // reasons
}

func (a refusals) commands(*mesh) []string {
	return []string{fmt.Sprintf("watchword refusals --service %s --%s", a.service, a.enforcement)}
}

func (a refusals) run(ctx context.Context, m *mesh) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		out, err := m.cli(ctx, "refusals", "--service", a.service, "--"+a.enforcement, "-o", "json")
		if err != nil {
			return "", err
		}
		reasons, err := reasonsOf(out)
		if err != nil {
			return "", err
		}
		missing := slices.ContainsFunc(a.want, func(w string) bool { return !slices.Contains(reasons, w) })
		if !missing || ctx.Err() != nil {
			return strings.Join(reasons, ", "), nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// reasonsOf lists the reasons in order, each once.
func reasonsOf(report string) ([]string, error) {
	var r struct {
		Refusals []struct {
			Reason string `json:"reason"`
		} `json:"refusals"`
	}
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	var out []string
	for _, e := range r.Refusals {
		out = append(out, e.Reason)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
