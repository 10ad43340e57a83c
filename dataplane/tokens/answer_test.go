package tokens

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var badAnswers = map[string]string{
	`{"access_token":"a","access_token":"b","token_type":"Bearer","expires_in":300}`: "twice",
	`{"access_token":"a","token_type":"Bearer"}`:                                     "expires_in",
	`{"access_token":"a","token_type":"Bearer","expires_in":"300"}`:                  "expires_in",
	`{"access_token":"a","token_type":"Bearer","expires_in":0}`:                      "expires_in",
	`{"access_token":"a","token_type":"Bearer","expires_in":-1}`:                     "expires_in",
	`{"access_token":"a","token_type":"Bearer","expires_in":3e2}`:                    "expires_in",
	`{"access_token":"a","token_type":"Bearer","expires_in":99999999999999999999}`:   "expires_in",
	`{"access_token":"a","token_type":"DPoP","expires_in":300}`:                      "token_type",
	`{"access_token":"a","expires_in":300}`:                                          "token_type",
	`{"access_token":"a\nX-Evil: b","token_type":"Bearer","expires_in":300}`:         "access_token",
	`{"access_token":"","token_type":"Bearer","expires_in":300}`:                     "access_token",
	`{"access_token":["a"],"token_type":"Bearer","expires_in":300}`:                  "access_token",
	`{"Access_Token":"a","token_type":"Bearer","expires_in":300}`:                    "access_token",
	`{"access_token":"a","token_type":"Bearer","expires_in":300} {}`:                 "not a JSON object",
	`["a"]`: "not a JSON object",
	``:      "not a JSON object",
}

// An answer that can be read in two ways, or isn't one, gives no token.
func TestAnswerRefused(t *testing.T) {
	for body, want := range badAnswers {
		if got, err := parseAnswer([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want an error with %q", body, got, err, want)
		}
	}
	long := `{"access_token":"` + strings.Repeat("a", maxToken+1) + `","token_type":"Bearer","expires_in":300}`
	if _, err := parseAnswer([]byte(long)); err == nil {
		t.Error("a token that no header can carry is taken")
	}
}

// Whatever an STS sends: what is taken can stand in a header and has a life; and
// the duration does not overflow.
func FuzzAnswer(f *testing.F) {
	for body := range badAnswers {
		f.Add([]byte(body))
	}
	f.Add([]byte(`{"access_token":"e30.e30.AA==","token_type":"bearer","expires_in":9223372036854775807,"scope":{"a":[1]}}`))
	f.Add([]byte(`{"error":"invalid_target","error_description":"\u0000"}`))
	began := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		if code, ok := parseRefusal(body); ok && !isCode(code) {
			t.Errorf("code %q of %q", code, body)
		}
		_, _ = parseMetadata(body, "https://sts.test")
		a, err := parseAnswer(body)
		if err != nil {
			if strings.Contains(err.Error(), "e30") {
				t.Errorf("the error shows the answer: %v", err)
			}
			return
		}
		if !json.Valid(body) || !isToken(a.value) || a.expires <= 0 {
			t.Fatalf("%q gives %q for %v", body, a.value, a.expires)
		}
		h := a.hold(began, time.Hour)
		if !h.token.Expires.After(began) || h.token.Expires.Sub(began) > time.Hour || h.until >= h.token.Expires.UnixNano() {
			t.Errorf("%q: given out until %v of %v", body, time.Unix(0, h.until), h.token.Expires)
		}
	})
}
