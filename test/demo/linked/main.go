// Command linked is a program of the demo that links the library: it says who called
// it, and calls others by their names.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		log.Fatal(err)
	}
}

// run serves the service on address, and what the demo asks it to call on local.
func run(service, controlPlane, address, local string) error {
	ctx := context.Background()
	plane, err := dataplane.Open(ctx, dataplane.Config{
		Addresses: []string{controlPlane}, Service: service, Credential: enrolment.JoinToken(os.Getenv("WATCHWORD_JOIN_TOKEN")),
	})
	if err != nil {
		return err
	}
	defer plane.Close()
	if err := plane.Ready(ctx); err != nil {
		return err
	}
	instance, err := plane.Identity(ctx)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", address, instance.ServerTLS())
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() {
		failed <- http.Serve(listener, plane.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			caller, _ := dataplane.FromContext(r.Context())
			fmt.Fprintf(w, "%s saw %s", service, caller.Subject)
		})))
	}()
	client := &http.Client{Transport: plane.Transport(nil)}
	calls := http.NewServeMux()
	calls.HandleFunc("GET /call/{service}", func(w http.ResponseWriter, r *http.Request) {
		res, err := client.Get("https://" + r.PathValue("service") + "/")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
	go func() { failed <- http.ListenAndServe(local, calls) }()
	return <-failed
}
