// Command plain is a program of the demo that knows nothing of Watchword: it says who
// called it, and calls others by their names. That the requests get tokens is up to
// http_proxy in its environment.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	name, address := os.Args[1], os.Args[2]
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s saw %s", name, r.Header.Get("x-watchword-caller"))
	})
	http.HandleFunc("GET /call/{service}", func(w http.ResponseWriter, r *http.Request) {
		res, err := http.Get("http://" + r.PathValue("service") + "/")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
	log.Fatal(http.ListenAndServe(address, nil))
}
