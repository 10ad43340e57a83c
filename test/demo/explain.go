package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// explain asks why a service refuses a token, and tells the step that did.
type explain struct {
	service string
	token   token
}

func (a explain) commands(*mesh) []string {
	return []string{fmt.Sprintf("watchword token --service %s --audience %s | watchword explain --service %s --token-file -", a.token.caller, a.token.audience, a.service)}
}

func (a explain) run(ctx context.Context, m *mesh) (string, error) {
	text, err := m.tokens.get(ctx, a.token)
	if err != nil {
		return "", err
	}
	out, err := m.cliReading(ctx, text, "explain", "--service", a.service, "--token-file", "-", "-o", "json")
	if err != nil {
		return "", err
	}
	return refusingStep(out)
}

// refusingStep finds the first step that ended with the reason.
func refusingStep(report string) (string, error) {
	var e struct {
		Reason string `json:"reason"`
		Steps  []struct {
			Outcome string `json:"outcome"`
			Detail  string `json:"detail"`
		} `json:"steps"`
	}
	if err := json.Unmarshal([]byte(report), &e); err != nil {
		return "", fmt.Errorf("reading the explanation: %w", err)
	}
	for _, s := range e.Steps {
		if e.Reason != "" && s.Outcome == e.Reason {
			return s.Outcome + ": " + s.Detail, nil
		}
	}
	return "let in", nil
}
