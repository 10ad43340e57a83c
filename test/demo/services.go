package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"
)

// callerHeader is where Envoy says who called.
const callerHeader = "x-watchword-caller"

// sight is what a service answers: what it saw of the request.
type sight struct {
	Service string `json:"service"`
	// Caller is empty if no token was verified.
	Caller string `json:"caller,omitempty"`
	// SawToken means that the token itself came through to the service.
	SawToken bool `json:"sawToken,omitempty"`
	// Then is what the next service saw.
	Then *sight `json:"then,omitempty"`
}

// String is "orders saw spiffe://..., payments saw ...".
func (s *sight) String() string {
	text := s.Service + " saw nobody"
	if s.Caller != "" {
		text = s.Service + " saw " + s.Caller
	}
	if s.SawToken {
		text += " and the token"
	}
	if s.Then != nil {
		text += ", " + s.Then.String()
	}
	return text
}

// services are the programs behind the Envoys. They have no token code: who
// calls is in a header.
type services struct {
	listeners map[string]net.Listener
	servers   []*http.Server
}

const localSuffix = "-local"

func isLocal(name string) bool { return strings.HasSuffix(name, localSuffix) }

func listenAll(p ports) (*services, error) {
	s := &services{listeners: make(map[string]net.Listener)}
	for name := range p {
		if !isLocal(name) {
			continue
		}
		l, err := net.Listen("tcp", p.address(name))
		if err != nil {
			s.stop()
			return nil, err
		}
		s.listeners[strings.TrimSuffix(name, localSuffix)] = l
	}
	return s, nil
}

// next is what a service does before it answers: it calls others.
type next func(ctx context.Context) (*sight, error)

// serve starts the services; takeOrder is what orders does for an order.
func (s *services) serve(takeOrder next) {
	for name, l := range s.listeners {
		mux := http.NewServeMux()
		mux.Handle("/", answer(name, nil))
		if name == "orders" {
			mux.Handle("POST /orders", answer(name, takeOrder))
		}
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
		// Envoy hands a request on in the protocol that it came in.
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
		s.servers = append(s.servers, server)
		go func() { _ = server.Serve(l) }() // ends with stop
	}
}

func answer(name string, then next) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// More than one value would mean that the caller's own came through.
		seen := &sight{Service: name, Caller: strings.Join(r.Header.Values(callerHeader), " and "), SawToken: r.Header.Get("Authorization") != ""}
		if then != nil {
			var err error
			if seen.Then, err = then(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen) // a caller that has gone
	})
}

// takeOrder pays: orders calls payments, through the Envoy of payments and
// with a token of its own.
func (m *mesh) takeOrder(ctx context.Context) (*sight, error) {
	c := newConnection(http1)
	defer c.close()
	status, body, err := c.send(ctx, m, request{to: "payments", method: "POST", path: "/payments", token: token{caller: "orders", audience: "payments"}})
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, errors.New("payments answered " + refusal(status, body))
	}
	seen := new(sight)
	return seen, json.Unmarshal(body, seen)
}

func (s *services) stop() {
	for _, server := range s.servers {
		_ = server.Close()
	}
	for _, l := range s.listeners {
		_ = l.Close()
	}
}
