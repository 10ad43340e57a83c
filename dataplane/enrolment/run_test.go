package enrolment

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// When Run renews: a little before the time that it was given, after a failure
// soon and then ever more seldom, after a success at the next time.
func TestRunTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		next := began.Add(30 * time.Minute)
		var at []time.Duration
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := errors.New("ended")
		err := run(ctx, func() time.Time { return next }, func(_ context.Context, failures int) error {
			at = append(at, time.Since(began))
			switch len(at) {
			case 1, 10:
				next = time.Now().Add(30 * time.Minute)
				return nil
			case 11:
				cancel(ended)
			}
			if want := len(at) - 2; len(at) < 10 && failures != want {
				t.Errorf("attempt %d has %d failures before it, want %d", len(at), failures, want)
			}
			return errors.New("no")
		}, time.Now)
		if !errors.Is(err, ended) || len(at) != 11 {
			t.Fatalf("run = %v after %d attempts, want %v after 11", err, len(at), ended)
		}
		last := time.Duration(0)
		for n, got := range at {
			least, most := backoffRange(n - 2)
			if n < 2 || n == 10 { // after a success
				least, most = 27*time.Minute, 30*time.Minute
			}
			if d := got - last; d < least || d > most {
				t.Errorf("attempt %d came after %v, want %v to %v", n+1, d, least, most)
			}
			last = got
		}
	})
}

func backoffRange(failures int) (least, most time.Duration) {
	most = min(500*time.Millisecond<<max(failures, 0), 30*time.Second)
	return most / 2, most
}

// A wait is never longer than longestWait, however often it failed, and a time
// that has passed is no wait.
func TestBackoff(t *testing.T) {
	for failures := range 100 {
		least, most := backoffRange(min(failures, 20))
		if d := backoff(failures); d < least || d > most {
			t.Errorf("backoff(%d) = %v, want %v to %v", failures, d, least, most)
		}
	}
	for _, d := range []time.Duration{-time.Hour, 0, 5} {
		if got := earlier(d); got > max(d, 0) || got < 0 {
			t.Errorf("earlier(%v) = %v", d, got)
		}
	}
}

// Run renews with real connections, tells its reader, and follows a CA that is
// replaced: the new one is trusted from the renewal on.
func TestRunRenews(t *testing.T) {
	p := newPlane(t)
	c := p.config()
	i := enrol(t, c)
	first := i.Expires()
	p.addCA(t)
	p.clock.set(noon.Add(45 * time.Minute)) // the time to renew has passed
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	<-i.Changed()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want the end of ctx", err)
	}
	if got := i.Expires(); !got.Equal(first.Add(45*time.Minute)) || len(i.Authorities()) != 2 {
		t.Errorf("the certificate ends at %v, with %d CAs; want 45 minutes later than %v, and 2", got, len(i.Authorities()), first)
	}
	if err := dial(t, i, p.listen(t, p.serverCertificate(t))); err != nil {
		t.Errorf("connecting to a server of the new CA: %v", err)
	}
}

// Its TLS is for the control plane alone, and shows the certificate of now.
func TestTLSConfig(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	i := enrol(t, p.config())
	if err := dial(t, i, p.address); err != nil {
		t.Errorf("connecting: %v", err)
	}
	if err := dial(t, i, other.address); err == nil {
		t.Error("it connects to another mesh")
	}
	shown, err := i.TLSConfig().GetClientCertificate(&tls.CertificateRequestInfo{})
	if chain, _ := i.Certificate(); err != nil || fmt.Sprint(shown.Certificate) != fmt.Sprint(chain) {
		t.Errorf("GetClientCertificate: %v, or not the certificate of now", err)
	}
}

func dial(t *testing.T, i *Identity, address string) error {
	t.Helper()
	config := i.TLSConfig()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	return conn.Close()
}

// A certificate that has ended is not shown: the key proves itself. If that is
// refused, the credential does not bring back who was revoked, not by itself.
func TestRenewAfterTheEnd(t *testing.T) {
	p := newPlane(t)
	log, _ := logged()
	c := p.config()
	c.Logger = log
	i := enrol(t, c)
	instance := i.Instance()
	p.asked()

	p.clock.set(noon.Add(2 * time.Hour))
	if err := i.renew(t.Context(), 0); err != nil {
		t.Fatalf("renew: %v", err)
	}
	if asked := p.asked(); len(asked) != 1 || asked[0].GetKeyAssertion() == "" || len(p.renewals) != 0 {
		t.Errorf("requests %v; want one by the key", asked)
	}

	p.clock.set(noon.Add(4 * time.Hour))
	p.answer(status.Error(codes.PermissionDenied, "revoked"))
	if err := i.renew(t.Context(), 0); !errors.Is(err, ErrRefused) {
		t.Errorf("renew: %v, want ErrRefused", err)
	}
	if asked := p.asked(); len(asked) != 1 || asked[0].GetKeyAssertion() == "" || i.Instance() != instance {
		t.Errorf("requests %v; want one by the key, and no more", asked)
	}
}
