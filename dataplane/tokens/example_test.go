package tokens_test

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/watchword-mesh/watchword/dataplane/tokens"
)

// forOAuth2 is an oauth2.TokenSource, for libraries that want one. It isn't part of
// the package, since its type would make every program link golang.org/x/oauth2.
type forOAuth2 struct {
	tokens   tokens.Tokens
	audience string
}

func (f forOAuth2) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	t, err := f.tokens.Token(ctx, f.audience)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: t.Value, TokenType: "Bearer", Expiry: t.Expires}, nil
}

var _ oauth2.TokenSource = forOAuth2{}

// Requests to orders carry a token for it, all others none.
func ExampleTransport() {
	var source *tokens.Source // tokens.New with an enrolment.Identity's Assertion
	client := &http.Client{Transport: &tokens.Transport{
		Tokens: source,
		Audience: func(r *http.Request) (string, bool) {
			return "orders", r.URL.Hostname() == "orders.internal"
		},
	}}
	_ = client
}
