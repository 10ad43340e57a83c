package main

import (
	"fmt"
	"net"
)

// ports of loopback, by what listens there.
type ports map[string]int

func (p ports) address(name string) string { return fmt.Sprintf("127.0.0.1:%d", p[name]) }

// portOffsets lays the ports out in a block, so that they are the same at each
// start and easy to tell apart.
var portOffsets = map[string]int{
	"admin": 0, "xds": 1, "sts": 2, "ops": 3,
	"frontend": 10, "frontend-local": 11,
	"orders": 20, "orders-local": 21,
	"payments": 30, "payments-local": 31,
	"own": 40,
	"web": 50, "web-program": 51, "web-out": 52,
	"ledger": 60, "ledger-program": 61,
	"mailer": 70, "mailer-program": 71, "mailer-out": 72, "mailer-ops": 73,
}

// Blocks of ports below those that systems give to outgoing connections: one
// of these could take the port of a control plane that is down for a moment.
const (
	firstBlock = 21700
	lastBlock  = 30700
	blockSize  = 100
)

// reserve finds a block that is free, and opens the ports of the services. As
// long as these are open, no other demo takes the block.
func reserve() (ports, *services, error) {
	var fault error
	for base := firstBlock; base <= lastBlock; base += blockSize {
		p := make(ports)
		for name, offset := range portOffsets {
			p[name] = base + offset
		}
		s, err := listenAll(p)
		if err == nil {
			if err = p.free(); err == nil {
				return p, s, nil
			}
			s.stop()
		}
		fault = err
	}
	return nil, nil, fmt.Errorf("looking for free ports from %d to %d: %w", firstBlock, lastBlock+blockSize, fault)
}

// free says whether others could listen on the ports that are not ours.
func (p ports) free() error {
	for name := range p {
		if isLocal(name) {
			continue
		}
		l, err := net.Listen("tcp", p.address(name))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
