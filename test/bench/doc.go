// Package bench measures the control plane against floors taken in the same run.
//
// Every server runs in a process of its own (the test binary, started again), so
// that its CPU and memory are measured apart from those of the clients. Clients
// are as small as gRPC allows, one TCP connection each, as Envoys have: they
// read a nonce out of a response and send it back.
//
//	go test -run '^$' -bench . ./test/bench
package bench
