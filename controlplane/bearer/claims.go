package bearer

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"time"
)

// registered are the claims of RFC 7519 section 4.1.
type registered struct {
	Issuer, Subject             string
	Audience                    audience
	Expiry, NotBefore, IssuedAt *seconds
}

// decode reads the registered claims, each by its exact name: encoding/json would
// take "EXP" for "exp".
func decode(claims []byte) (registered, error) {
	var all map[string]json.RawMessage
	var c registered
	err := json.Unmarshal(claims, &all)
	for name, into := range map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "exp": &c.Expiry, "nbf": &c.NotBefore, "iat": &c.IssuedAt,
	} {
		if text, ok := all[name]; ok && err == nil {
			err = json.Unmarshal(text, into)
		}
	}
	if err != nil {
		return registered{}, errors.New("a registered claim of the token has a type that it can't have")
	}
	return c, nil
}

// audience is `aud`: a string, or a list of them (RFC 7519 section 4.1.3).
type audience []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil && !bytes.Equal(b, []byte("null")) {
		*a = audience{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*a = list
	return nil
}

// seconds is a NumericDate (RFC 7519 section 2), which may have a fraction.
type seconds float64

// latest is the year 9999: beyond it arithmetic on times goes wrong.
const latest = 253402300799

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if bytes.Equal(b, []byte("null")) || f < 0 || f > latest {
		return errors.New("not a time")
	}
	*s = seconds(f)
	return nil
}

func (s seconds) time() time.Time {
	whole, fraction := math.Modf(float64(s))
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC()
}

// objectOf keeps numbers as they are written.
func objectOf(claims []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(claims))
	d.UseNumber()
	var all map[string]any
	if err := d.Decode(&all); err != nil {
		return nil, errors.New("the claims of the token are not one JSON object")
	}
	return all, nil
}
