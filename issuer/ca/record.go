package ca

import "time"

// State is where a CA is in its life.
type State string

// Active is the state of a CA that is trusted; the newest one signs.
const Active State = "active"

// Record is a CA as the store keeps it.
type Record struct {
	// ID is made from the public key.
	ID    string
	State State
	// Created is in UTC.
	Created time.Time
	// Certificate is the self-signed one, DER.
	Certificate []byte
	// PrivatePKCS8 is the private key, DER. The store seals it; it belongs
	// into no log and no answer.
	PrivatePKCS8 []byte
}
