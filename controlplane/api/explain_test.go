package api

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// echo is an Explainer that answers with the request, but for the token.
type echo struct {
	asked *adminv1.ExplainRequest
	err   error
}

func (e *echo) Explain(req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	if e.asked = req; e.err != nil {
		return nil, e.err
	}
	return &adminv1.ExplainResponse{Revision: 7, Allowed: req.GetToken() != "", Steps: []*adminv1.ExplainStep{{Name: "route", Outcome: "selected", Detail: req.GetPath()}}}, nil
}

// What can't be a request is refused, without a word of what may be a token; and
// nothing of a request is logged.
func TestExplain(t *testing.T) {
	const token = "eyJhbGciOiJub25lIn0.e30.x"
	header := func(name, value string) []*adminv1.ExplainField {
		return []*adminv1.ExplainField{{Name: name, Value: value}}
	}
	s, _ := open(t, serviceYAML("a", "x"))
	e := &echo{}
	s.Explainer = e
	var log bytes.Buffer
	s.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})
	for name, tt := range map[string]struct {
		req  *adminv1.ExplainRequest
		err  error
		code codes.Code
		want string
	}{
		"right":          {req: &adminv1.ExplainRequest{Service: "a", Token: token, Headers: header("a", "b")}},
		"no service":     {&adminv1.ExplainRequest{Token: token}, nil, codes.InvalidArgument, "service is missing"},
		"no such":        {&adminv1.ExplainRequest{Service: "b", Token: token}, ErrUnknown, codes.NotFound, `there is no Service "b"`},
		"not published":  {&adminv1.ExplainRequest{Service: "a", Token: token}, ErrUnknown, codes.Internal, `nothing was published for Service "a" yet`},
		"failed":         {&adminv1.ExplainRequest{Service: "a", Token: token}, errors.New("it broke"), codes.Internal, "it broke"},
		"host":           {&adminv1.ExplainRequest{Service: "a", Headers: header("HOST", token)}, nil, codes.InvalidArgument, "give host"},
		"no header name": {&adminv1.ExplainRequest{Service: "a", Headers: header("", token)}, nil, codes.InvalidArgument, "headers[0] can't be in a request"},
		"header name":    {&adminv1.ExplainRequest{Service: "a", Headers: header(token+" ", "x")}, nil, codes.InvalidArgument, "headers[0] can't be in a request"},
		"header value":   {&adminv1.ExplainRequest{Service: "a", Headers: header("a", token+"\r\n")}, nil, codes.InvalidArgument, "headers[0] can't be in a request"},
	} {
		e.err = tt.err
		_, err := s.Explain(root(), tt.req)
		if tt.want == "" && err == nil {
			continue
		}
		wantError(t, err, tt.code, tt.want)
		if err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log.String())
	}
}

// The token travels in the body, also as JSON.
func TestExplainJSON(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	e := &echo{}
	s.Explainer = e
	url, _ := serve(t, s)
	body := strings.NewReader(`{"token": "t", "path": "/x", "headers": [{"name": "a", "value": "b"}]}`)
	code, text := do(t, http.MethodPost, url+"/v1/services/a/explain", body, bearer)
	if code != http.StatusOK || !strings.Contains(text, `"allowed":true`) || !strings.Contains(text, `"detail":"/x"`) {
		t.Errorf("%d %s", code, text)
	}
	if got := e.asked; got.GetService() != "a" || got.GetToken() != "t" || got.GetHeaders()[0].GetValue() != "b" {
		t.Errorf("asked for %v", got)
	}
	code, text = do(t, http.MethodPost, url+"/v1/services/a/explain", strings.NewReader(`{"token": "secret-token"`), bearer)
	if code != http.StatusBadRequest || strings.Contains(text, "secret-token") {
		t.Errorf("broken JSON: %d %s", code, text)
	}
}
