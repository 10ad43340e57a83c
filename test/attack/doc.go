// Package attack besieges a control plane, over loopback and for seconds, with what
// a stranger or an enrolled instance of ill intent could send. Meanwhile keys,
// metadata and health must be served, a data plane must get its pushes, and the
// right client its tokens; afterwards everything must be as before.
//
// Each attack is bounded in number and time, and ends by itself. It can be aimed at
// the control plane of the test alone.
package attack
