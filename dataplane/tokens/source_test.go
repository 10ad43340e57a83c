package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// However many wait for a token, and however slow the STS is, it is asked once.
func TestManyWaitForOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.delay = 8 * time.Second
		s := sts.source(t)
		defer s.Close()
		var wg sync.WaitGroup
		var got sync.Map
		for range 500 {
			wg.Go(func() {
				token, err := s.Token(t.Context(), "orders")
				if err != nil {
					t.Errorf("Token: %v", err)
				}
				got.Store(token.Value, true)
			})
		}
		wg.Wait()
		different := 0
		got.Range(func(any, any) bool { different++; return true })
		if n := sts.count(); n != 1 || different != 1 {
			t.Errorf("%d requests, %d tokens; want 1 and 1", n, different)
		}
	})
}

// A token in use is renewed between 0.4 and 0.5 of its life, by instances that were
// started together at different moments.
func TestRenewsAtHalfOfTheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		began := time.Now()
		for range 20 {
			s := sts.source(t)
			defer s.Close()
			mustToken(t, s, "orders")
		}
		time.Sleep(sts.life * 6 / 10)
		moments := map[time.Duration]bool{}
		asked := sts.times()
		for _, at := range asked[20:] {
			d := at.Sub(began)
			moments[d] = true
			if d < sts.life*4/10 || d > sts.life/2 {
				t.Errorf("renewed after %v of %v", d, sts.life)
			}
		}
		if n := len(asked); n != 40 || len(moments) < 10 {
			t.Errorf("%d requests, the renewals at %d moments; want 40, and hardly two alike", n, len(moments))
		}
	})
}

// The STS is away for 80 % of a token's life, from just after it was given on.
// No call fails, and none waits.
func TestSTSIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		defer s.Close()
		mustToken(t, s, "orders")
		began := time.Now()
		var calls atomic.Int64
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				for time.Since(began) < 3*sts.life {
					asked := time.Now()
					token, err := s.Token(t.Context(), "orders")
					if err != nil || !time.Now().Before(token.Expires) || !time.Now().Equal(asked) {
						t.Errorf("after %v: %v, %v, waited %v", time.Since(began), token, err, time.Since(asked))
					}
					calls.Add(1)
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		sts.set(func(f *fakeSTS) { f.away = true })
		time.Sleep(sts.life * 8 / 10)
		away := sts.count()
		sts.set(func(f *fakeSTS) { f.away = false })
		wg.Wait()
		if away > 20 {
			t.Errorf("asked %d times while it was away", away)
		}
		t.Logf("%d calls; the STS was asked %d times while it was away, %d in all", calls.Load(), away, sts.count())
	})
}

// A token is given out until shortly before its end, then callers hear why there is
// none, and soon after the STS is back there is one.
func TestTokenEndsWhileTheSTSIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		defer s.Close()
		first := mustToken(t, s, "orders")
		sts.set(func(f *fakeSTS) { f.away = true })
		time.Sleep(time.Until(first.Expires) - margin - time.Millisecond)
		if got := mustToken(t, s, "orders"); !got.same(first) {
			t.Errorf("before the margin: %v, want the first token, %v", got, first)
		}
		time.Sleep(time.Millisecond)
		var e *Error
		if _, err := s.Token(t.Context(), "orders"); !errors.As(err, &e) || e.Code != "" {
			t.Errorf("in the margin: %v; want an error without a code", err)
		}
		before := sts.count()
		for range 1000 {
			_, err := s.Token(t.Context(), "orders")
			if err == nil {
				t.Fatal("a token from an STS that is away")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := sts.count() - before; n > 12 {
			t.Errorf("1000 calls in 10 s asked the STS %d times", n)
		}
		sts.set(func(f *fakeSTS) { f.away = false })
		time.Sleep(missingPause)
		mustToken(t, s, "orders")
	})
}

// What nobody asks for is renewed for two lives at most, and then given up.
func TestIdleAudienceIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		defer s.Close()
		mustToken(t, s, "orders")
		time.Sleep(20 * sts.life)
		if n := sts.count(); n < 4 || n > 6 {
			t.Errorf("%d requests in 20 lives; want those of two", n)
		}
		if n := len(*s.audiences.Load()); n != 0 {
			t.Errorf("%d audiences are kept", n)
		}
		mustToken(t, s, "orders")
	})
}

// A refusal is an error with its code, for some seconds without a request each.
func TestRefusalIsRemembered(t *testing.T) {
	for _, c := range []struct {
		status   int
		code     string
		want     string
		wantText string
	}{
		{400, "invalid_target", "invalid_target", "add it to the calls of the Service"},
		{401, "invalid_client", "invalid_client", "enrol anew"},
		{400, "Evil\ntext", "", "not as a token endpoint does"},
		{429, "temporarily_unavailable", "temporarily_unavailable", ""},
		{503, "invalid_client", "temporarily_unavailable", ""},
		{500, "", "", "status 500"},
		{307, "", "", "status 307"},
	} {
		synctest.Test(t, func(t *testing.T) {
			sts := newSTS(t)
			body, _ := json.Marshal(map[string]string{"error": c.code, "error_description": "s3cr3t"})
			sts.answer = func(string) (int, http.Header, string) {
				return c.status, http.Header{"Location": {"https://evil.test/"}}, string(body)
			}
			s := sts.source(t)
			defer s.Close()
			for range 100 {
				var e *Error
				_, err := s.Token(t.Context(), "orders")
				if !errors.As(err, &e) || e.Code != c.want || !strings.Contains(err.Error(), c.wantText) || strings.Contains(err.Error(), "s3cr3t") {
					t.Fatalf("%d %q: %v (%+v); want code %q and %q", c.status, c.code, err, e, c.want, c.wantText)
				}
				time.Sleep(time.Millisecond)
			}
			if n := sts.count(); n != 1 {
				t.Errorf("%d %q: %d requests in 0.1 s; want 1", c.status, c.code, n)
			}
			sts.set(func(f *fakeSTS) { f.answer = nil })
			time.Sleep(5 * time.Second)
			mustToken(t, s, "orders")
		})
	}
}

// While the STS refuses to renew a token, what it has given stays good.
func TestRefusedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		defer s.Close()
		first := mustToken(t, s, "orders")
		sts.set(func(f *fakeSTS) {
			f.answer = func(string) (int, http.Header, string) { return 400, nil, `{"error":"invalid_target"}` }
		})
		time.Sleep(sts.life * 9 / 10)
		if got := mustToken(t, s, "orders"); !got.same(first) {
			t.Errorf("got %v, want the first, %v", got, first)
		}
		sts.set(func(f *fakeSTS) { f.answer = nil })
		time.Sleep(sts.life / 10)
		if got := mustToken(t, s, "orders"); got.same(first) {
			t.Error("the first token is given out after its end")
		}
	})
}

// Audiences are bounded: one without a token makes room, one with a token does not.
func TestAudiencesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t, func(c *Config) { c.MaxAudiences = 2 })
		defer s.Close()
		mustToken(t, s, "a")
		sts.set(func(f *fakeSTS) {
			f.answer = func(string) (int, http.Header, string) { return 400, nil, `{"error":"invalid_target"}` }
		})
		for i := range 10 {
			if _, err := s.Token(t.Context(), fmt.Sprint("bad", i)); err == nil || !strings.Contains(err.Error(), "invalid_target") {
				t.Errorf("bad%d: %v, want invalid_target", i, err)
			}
		}
		sts.set(func(f *fakeSTS) { f.answer = nil })
		mustToken(t, s, "b")
		if _, err := s.Token(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "raise MaxAudiences") {
			t.Errorf("a third audience: %v; want an error that says what to do", err)
		}
		mustToken(t, s, "a")
	})
}

// Who waits stops waiting when its context ends; the others go on.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.delay = 2 * time.Second
		s := sts.source(t)
		defer s.Close()
		var wg sync.WaitGroup
		wg.Go(func() { mustToken(t, s, "orders") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Token(ctx, "orders"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Token: %v; want the context's error", err)
		}
		wg.Wait()
		if n := sts.count(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// A request that never ends is given up after its time.
func TestSTSHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.delay = time.Hour
		s := sts.source(t)
		defer s.Close()
		began := time.Now()
		if _, err := s.Token(t.Context(), "orders"); err == nil || time.Since(began) != askTimeout {
			t.Errorf("Token: %v after %v; want an error after %v", err, time.Since(began), askTimeout)
		}
	})
}

// Close ends what is under way, and after it there is nothing.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		mustToken(t, s, "orders")
		sts.set(func(f *fakeSTS) { f.delay = time.Hour })
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.Token(t.Context(), "stock"); !errors.Is(err, ErrClosed) {
				t.Errorf("who waited got %v, want ErrClosed", err)
			}
		})
		synctest.Wait()
		s.Close()
		wg.Wait()
		if _, err := s.Token(t.Context(), "orders"); !errors.Is(err, ErrClosed) {
			t.Errorf("Token after Close: %v, want ErrClosed", err)
		}
		s.Keep(nil)
		s.DropAll()
		s.Close()
	})
}

// The wall clock decides, also where it has been set or a machine has slept.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		var jump atomic.Int64
		s := sts.source(t, func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		})
		defer s.Close()
		first := mustToken(t, s, "orders")
		jump.Store(int64(sts.life))
		if got := mustToken(t, s, "orders"); got.same(first) {
			t.Error("a token is given out after its end")
		}
		// Renewals are found late by no more than lookAgain.
		before := sts.count()
		jump.Add(int64(sts.life * 6 / 10))
		time.Sleep(lookAgain)
		synctest.Wait()
		if n := sts.count() - before; n != 1 {
			t.Errorf("%d renewals, want 1", n)
		}
	})
}

// However long the STS says that a token is valid, it is used for MaxAge.
func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.life = 1000 * time.Hour
		s := sts.source(t)
		defer s.Close()
		got := mustToken(t, s, "orders")
		if want := time.Now().Add(DefaultMaxAge); !got.Expires.Equal(want) {
			t.Errorf("expires %v, want %v", got.Expires, want)
		}
	})
}

// A token that has ended when it comes is given to nobody.
func TestTokenEndsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.life, sts.delay = 3*time.Second, 4*time.Second
		s := sts.source(t)
		defer s.Close()
		if got, err := s.Token(t.Context(), "orders"); err == nil {
			t.Errorf("got %v, %v before now", got, time.Since(got.Expires))
		}
	})
}

// No token, and no assertion, is in what is printed, logged or counted.
func TestTokensAreNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		var log syncBuffer
		reg := prometheus.NewRegistry()
		s := sts.source(t, func(c *Config) {
			c.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &log})
			c.Registerer = reg
		})
		defer s.Close()
		token := mustToken(t, s, "orders")
		sts.set(func(f *fakeSTS) { f.away = true })
		time.Sleep(sts.life)
		_, failed := s.Token(t.Context(), "orders")
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(token)
		if err != nil {
			t.Fatal(err)
		}
		out := fmt.Sprintf("%v %+v %#v %s %q %x %d", token, token, token, token, token, token, token) +
			fmt.Sprintf("%v %+v %#v %v", []Token{token}, &token, map[string]Token{"a": token}, failed) +
			fmt.Sprintf("%+v %#v %+v", s, s, struct{ T Token }{token}) + string(asJSON) + fmt.Sprint(families) + log.String()
		if strings.Contains(out, token.Value) || strings.Contains(out, "assertion-") || strings.Contains(out, fmt.Sprintf("%x", token.Value[:8])) {
			t.Errorf("a secret is in:\n%s", out)
		}
		if !strings.Contains(log.String(), "no token") || !strings.Contains(fmt.Sprint(families), resultIssued) {
			t.Errorf("the failure is not logged or counted:\n%s\n%v", &log, families)
		}
	})
}
