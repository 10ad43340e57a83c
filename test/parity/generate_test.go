package parity

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// The cast: few names, so that everything has to do with everything.
var (
	issuerClaims = map[string]string{"sts": "https://sts.example", "a": "https://a.example", "b": "https://b.example", "any": ""}
	issuerNames  = []string{"a", "any", "b", "sts"}
	consumers    = []string{"ann", "bob", "cy", "guest"}
	subjects     = []string{"alice", "root", "spiffe://mesh/web", "spiffe://mesh/api", "zoë", "alice "}
	audiences    = []string{"orders", "https://orders.example/", "orders.example", "other"}
	hostnames    = []string{"orders", "shop.example.com", "a.shop.example.com", "SHOP.example.com:80", "shop.example.com.", "shop.example.com:x"}
	targets      = []string{"/", "/a", "/a/b", "/a//b", "/a/./b", "/admin", "/%61dmin", "/x%2f..%2fadmin", "/a/%40", "/a/@", "/a/b;c", "/open/x", "/A"}
	methods      = []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodOptions}
)

// pool has the signers, and one that nobody trusts.
type pool struct {
	trusted  []*signer
	stranger *signer
	// standing are tokens that come again, in one ruleset after the other: what is
	// remembered of one must not count where it is not right any more.
	standing []string
}

func newPool() *pool {
	p := &pool{stranger: newSigner("ES256", "stranger")}
	for _, e := range []struct{ alg, kid string }{
		{"ES256", "es1"}, {"ES256", "es2"}, {"ES256", ""}, {"EdDSA", "ed"}, {"HS256", "hs"}, {"HS512", ""}, {"RS256", "rs"}, {"PS256", "ps"}, {"ES384", "es384"},
	} {
		p.trusted = append(p.trusted, newSigner(e.alg, e.kid))
	}
	p.standing = p.standingTokens(time.Now().Unix())
	return p
}

// standingTokens are two of each signer for each issuer. Some end while the test runs.
func (p *pool) standingTokens(now int64) []string {
	var out []string
	for i, s := range slices.Concat(p.trusted, []*signer{p.stranger}) {
		for j, iss := range []string{issuerClaims["sts"], issuerClaims["a"], issuerClaims["b"], "set-0-key-0", "set-0-key-1"} {
			for k, exp := range []int64{now + 15*int64(j+1), now + 24*3600} {
				claims, err := json.Marshal(map[string]any{
					"iss": iss, "sub": subjects[(i+j+k)%2], "aud": "orders", "exp": exp, "iat": now, "jti": "j", "app": iss, "n": 7, "scope": "x admin",
				})
				if err != nil {
					panic(err)
				}
				header := map[string]any{"alg": s.alg, "typ": "at+jwt"}
				if s.kid != "" {
					header["kid"] = s.kid
				}
				out = append(out, s.token(header, claims))
			}
		}
	}
	return out
}

// world is a ruleset with who signs for it.
type world struct {
	rs      *dataplanev1.Ruleset
	signers map[string][]*signer // by issuer, or by credential key
	pool    *pool
}

func pick[T any](t *rapid.T, label string, from []T) T { return rapid.SampledFrom(from).Draw(t, label) }

func some[T comparable](t *rapid.T, label string, from []T, least, most int) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), least, most, rapid.ID).Draw(t, label)
}

// chance is true in one of n cases.
func chance(t *rapid.T, label string, n int) bool { return rapid.IntRange(1, n).Draw(t, label) == n }

func (p *pool) keys(t *rapid.T, label string) []*signer {
	list := some(t, label, p.trusted, 1, 3)
	kidless := false
	return slices.DeleteFunc(list, func(s *signer) bool {
		second := s.kid == "" && kidless
		kidless = kidless || s.kid == ""
		return second
	})
}

func keysOf(list []*signer) []*dataplanev1.Key {
	var out []*dataplanev1.Key
	for _, s := range list {
		out = append(out, s.key())
	}
	return out
}

func (p *pool) world(t *rapid.T) *world {
	w := &world{pool: p, signers: map[string][]*signer{}, rs: &dataplanev1.Ruleset{
		Service:     service,
		OwnSubjects: &dataplanev1.OwnSubjects{Prefix: "spiffe://mesh/", Issuer: issuerClaims["sts"]},
	}}
	for _, name := range issuerNames {
		w.signers[name] = p.keys(t, "keys of "+name)
		w.rs.Issuers = append(w.rs.Issuers, &dataplanev1.Issuer{Name: name, Issuer: issuerClaims[name], Keys: keysOf(w.signers[name])})
	}
	for i, name := range consumers {
		c := &dataplanev1.Consumer{Name: name, Id: fmt.Sprint("id-", i), Username: name}
		if i%2 == 0 {
			c.CustomId = "custom-" + name
		}
		w.rs.Consumers = append(w.rs.Consumers, c)
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "sets") {
		w.set(t, fmt.Sprint("set-", i))
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "routes") {
		w.rs.Routes = append(w.rs.Routes, w.route(t, fmt.Sprint("r", i), w.match(t, fmt.Sprint("match ", i), 1)))
	}
	w.rs.Routes = append(w.rs.Routes, w.route(t, "", &dataplanev1.RequestMatch{}))
	return w
}

// set is one of consumers, or of services that sign for themselves.
func (w *world) set(t *rapid.T, name string) {
	s := &dataplanev1.CredentialSet{Name: name}
	ofServices := chance(t, name+" of services", 3)
	for i := range rapid.IntRange(1, 4).Draw(t, name+" size") {
		key := fmt.Sprintf("%s-key-%d", name, i)
		w.signers[key] = w.pool.keys(t, "keys of "+key)
		c := &dataplanev1.Credential{Key: key, Keys: keysOf(w.signers[key]), Consumer: consumers[i%3]}
		if ofServices {
			c.Consumer, c.Service, c.Subject = "", []string{"web", "api", "db", "ui"}[i], "spiffe://mesh/"+[]string{"web", "api", "db", "ui"}[i]
		}
		s.Credentials = append(s.Credentials, c)
	}
	w.rs.CredentialSets = append(w.rs.CredentialSets, s)
}

func (w *world) match(t *rapid.T, label string, least int) *dataplanev1.RequestMatch {
	m := &dataplanev1.RequestMatch{}
	hosts := []string{"shop.example.com", "*.example.com", "orders"}
	paths := []string{"/a", "/a/*", "/admin", "/a/@", "/open/*"}
	list := func(what string, from []string) []string {
		if !chance(t, label+" by "+what, 3) {
			return nil
		}
		return some(t, label+" "+what, from, 1, 2)
	}
	m.Hosts, m.Paths, m.Methods = list("hosts", hosts), list("paths", paths), list("methods", methods)
	if least > 0 && len(m.Hosts)+len(m.Paths)+len(m.Methods) == 0 {
		m.Paths = some(t, label+" paths", paths, 1, 2)
	}
	if least == 0 {
		m.NotHosts, m.NotPaths, m.NotMethods = list("not hosts", hosts), list("not paths", paths), list("not methods", methods)
	}
	return m
}

func (w *world) route(t *rapid.T, name string, m *dataplanev1.RequestMatch) *dataplanev1.Route {
	r := &dataplanev1.Route{Name: name, Match: m, Authentication: w.authentication(t, name+" authentication"), Authorization: w.authorization(t, name+" authorization")}
	if r.Authentication.GetMode() != dataplanev1.Authentication_OFF && chance(t, name+" observes", 8) {
		r.Authentication.Observe = true
	} else if chance(t, name+" observes another", 8) {
		if o := w.authentication(t, name+" observed"); o.GetMode() != dataplanev1.Authentication_OFF {
			o.AnonymousConsumer, o.ConsumerHeaders = "", nil
			r.ObservedAuthentication = o
		}
	}
	if chance(t, name+" observes authorization", 6) {
		r.ObservedAuthorization = w.authorization(t, name+" observed authorization")
	}
	if chance(t, name+" responses", 3) {
		r.Responses = []*dataplanev1.Response{
			{Reasons: []string{string(reason.TokenMissing), string(reason.TokenExpired)}, Status: 401, Body: "no", ContentType: "text/plain"},
			{Status: 403, Body: `{"message":"Forbidden"}`, ContentType: "application/json"},
		}
	}
	return r
}

func (w *world) authentication(t *rapid.T, label string) *dataplanev1.Authentication {
	a := &dataplanev1.Authentication{AllowScripts: true, Mode: pick(t, label+" mode", []dataplanev1.Authentication_Mode{
		dataplanev1.Authentication_STRICT, dataplanev1.Authentication_STRICT, dataplanev1.Authentication_STRICT,
		dataplanev1.Authentication_OPTIONAL, dataplanev1.Authentication_PERMISSIVE, dataplanev1.Authentication_OFF,
	})}
	if a.Mode == dataplanev1.Authentication_OFF {
		return a
	}
	for i := range rapid.IntRange(1, 3).Draw(t, label+" rules") {
		a.Rules = append(a.Rules, w.rule(t, fmt.Sprint(label, " rule ", i)))
	}
	if a.Mode != dataplanev1.Authentication_STRICT && chance(t, label+" anonymous", 2) {
		a.AnonymousConsumer = "guest"
	}
	for i, attribute := range some(t, label+" consumer headers", []dataplanev1.ConsumerHeader_Attribute{1, 2, 3, 4, 5, 6}, 0, 3) {
		a.ConsumerHeaders = append(a.ConsumerHeaders, &dataplanev1.ConsumerHeader{Attribute: attribute, Header: fmt.Sprint("x-consumer-", i)})
	}
	return a
}

func (w *world) rule(t *rapid.T, label string) *dataplanev1.TokenRule {
	r := &dataplanev1.TokenRule{
		ClockSkew:            durationpb.New(time.Duration(pick(t, label+" skew", []int{60, 60, 0, 1, 30})) * time.Second),
		ForwardOriginalToken: chance(t, label+" forwards", 2),
		Expiration:           pick(t, label+" exp", []dataplanev1.TimeCheck{dataplanev1.TimeCheck_REQUIRED, dataplanev1.TimeCheck_REQUIRED, dataplanev1.TimeCheck_IF_PRESENT, dataplanev1.TimeCheck_NOT_CHECKED}),
		NotBefore:            pick(t, label+" nbf", []dataplanev1.TimeCheck{dataplanev1.TimeCheck_IF_PRESENT, dataplanev1.TimeCheck_IF_PRESENT, dataplanev1.TimeCheck_REQUIRED, dataplanev1.TimeCheck_NOT_CHECKED}),
	}
	if chance(t, label+" audience unchecked", 4) {
		r.AudienceUnchecked = true
	} else {
		r.Audiences = some(t, label+" audiences", []string{"orders", "https://orders.example"}, 1, 2)
	}
	if s := pick(t, label+" lifetime", []int{0, 600, 3600}); s > 0 {
		r.MaxLifetime = durationpb.New(time.Duration(s) * time.Second)
	}
	if chance(t, label+" of a set", 2) {
		r.CredentialSet = pick(t, label+" set", w.rs.GetCredentialSets()).GetName()
		r.KeyClaim = pick(t, label+" key claim", []*dataplanev1.KeyClaim{
			{Name: "iss", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}},
			{Name: "iss", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD, dataplanev1.KeyClaim_HEADER}},
			{Name: "kid", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_HEADER}},
			{Name: "app", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}},
		})
	} else {
		r.Issuer = pick(t, label+" issuer", issuerNames)
		if chance(t, label+" consumers", 3) {
			r.Consumers = []*dataplanev1.ConsumerMatch{
				{Consumer: "ann", When: []*dataplanev1.ClaimMatch{w.claimMatch(t, label+" ann")}},
				{Consumer: "bob", When: []*dataplanev1.ClaimMatch{w.claimMatch(t, label+" bob")}},
			}
		}
		if chance(t, label+" types", 4) {
			r.Types = []string{"at+jwt"}
		}
	}
	if chance(t, label+" requires", 5) {
		r.RequiredClaims = []string{"jti"}
	}
	w.places(t, label, r)
	w.outputs(t, label, r)
	return r
}

func (w *world) places(t *rapid.T, label string, r *dataplanev1.TokenRule) {
	place := func(name, prefix string) *dataplanev1.TokenLocation {
		return &dataplanev1.TokenLocation{Name: name, Prefix: prefix}
	}
	for _, n := range some(t, label+" places", []int{0, 0 + 1, 2, 3, 4, 5, 6, 7}, 1, 3) {
		switch n {
		case 0:
			r.FromHeaders = append(r.FromHeaders, place("authorization", "Bearer "))
		case 1:
			r.FromHeaders = append(r.FromHeaders, place("x-token", ""))
		case 2:
			r.FromParams = append(r.FromParams, place("tok", ""))
		case 3:
			r.FromParams = append(r.FromParams, place("ptok", "Bearer "))
		case 4:
			r.FromCookies = append(r.FromCookies, place("session", ""))
		case 5:
			r.FromCookies = append(r.FromCookies, place("pc", "v1."))
		case 6:
			r.FromForm = append(r.FromForm, place("ftok", ""))
		case 7:
			r.FromForm = append(r.FromForm, place("pftok", "JWT "))
		}
	}
}

func (w *world) outputs(t *rapid.T, label string, r *dataplanev1.TokenRule) {
	for i := range rapid.IntRange(0, 2).Draw(t, label+" outputs") {
		o := &dataplanev1.OutputClaim{ClaimPath: pick(t, fmt.Sprint(label, " output claim ", i), [][]string{{"sub"}, {"n"}, {"flag"}, {"realm", "role"}, {"https://x.example/y.z"}, {"list"}, {"evil"}, {"scope"}})}
		switch rapid.IntRange(0, 4).Draw(t, fmt.Sprint(label, " output to ", i)) {
		case 0:
			o.Header = fmt.Sprint("x-out-", i)
		case 1:
			o.Header, o.KeepExisting = fmt.Sprint("x-also-", i), true
		case 2:
			o.Query = fmt.Sprint("out", i)
		case 3:
			o.Cookie = fmt.Sprint("cout", i)
		case 4:
			o.Form = fmt.Sprint("fout", i)
		}
		r.OutputClaims = append(r.OutputClaims, o)
	}
	if chance(t, label+" payload header", 6) {
		r.PayloadHeader = "x-payload"
	}
}

func (w *world) authorization(t *rapid.T, label string) *dataplanev1.Authorization {
	a := &dataplanev1.Authorization{Restricted: chance(t, label+" restricted", 2)}
	for i := range rapid.IntRange(0, 2).Draw(t, label+" denies") {
		a.Deny = append(a.Deny, w.authorizationRule(t, fmt.Sprintf("%s deny/%d", strings.ReplaceAll(label, " ", "-"), i)))
	}
	if a.Restricted {
		for i := range rapid.IntRange(0, 3).Draw(t, label+" allows") {
			a.Allow = append(a.Allow, w.authorizationRule(t, fmt.Sprintf("%s allow/%d", strings.ReplaceAll(label, " ", "-"), i)))
		}
	}
	return a
}

func (w *world) authorizationRule(t *rapid.T, label string) *dataplanev1.AuthorizationRule {
	r := &dataplanev1.AuthorizationRule{Name: strings.ReplaceAll(label, " ", "-")}
	for i := range rapid.IntRange(0, 2).Draw(t, label+" from") {
		r.From = append(r.From, w.principal(t, fmt.Sprint(label, " from ", i)))
	}
	if chance(t, label+" not from", 4) {
		r.NotFrom = append(r.NotFrom, w.principal(t, label+" not from"))
	}
	if chance(t, label+" to", 2) {
		r.To = w.match(t, label+" to", 0)
	}
	if chance(t, label+" when", 3) {
		r.When = append(r.When, w.claimMatch(t, label+" when"))
	}
	return r
}

func (w *world) principal(t *rapid.T, label string) *dataplanev1.Principal {
	switch rapid.IntRange(0, 3).Draw(t, label) {
	case 0:
		return &dataplanev1.Principal{Issuer: pick(t, label+" issuer", issuerNames)}
	case 1:
		return &dataplanev1.Principal{Issuer: pick(t, label+" issuer", issuerNames), Subject: pick(t, label+" subject", subjects)}
	case 2:
		return &dataplanev1.Principal{Service: pick(t, label+" service", []string{"web", "api"})}
	}
	return &dataplanev1.Principal{Consumer: pick(t, label+" consumer", consumers)}
}

func (w *world) claimMatch(t *rapid.T, label string) *dataplanev1.ClaimMatch {
	m := &dataplanev1.ClaimMatch{
		ClaimPath: pick(t, label+" claim", [][]string{{"n"}, {"flag"}, {"scope"}, {"list"}, {"realm", "role"}, {"https://x.example/y.z"}, {"absent"}}),
		Op:        dataplanev1.ClaimMatch_Operator(rapid.IntRange(1, 4).Draw(t, label+" op")),
	}
	if m.Op == dataplanev1.ClaimMatch_IN || m.Op == dataplanev1.ClaimMatch_NOT_IN {
		for _, v := range some(t, label+" values", []any{"x", "admin", "orders:read", "x y", "", " ", 7.0, true, "7"}, 1, 3) {
			value, _ := structpb.NewValue(v)
			m.Values = append(m.Values, value)
		}
	}
	return m
}

// request is made for a world; lax has the names of the known differences that it
// shows.
type request struct {
	ruleset.Request
	lax []string
}

func (w *world) request(t *rapid.T, now time.Time) request {
	r := request{Request: ruleset.Request{
		Method:    pick(t, "method", methods),
		Authority: pick(t, "host", hostnames),
		Path:      pick(t, "path", targets),
	}}
	var query, cookies, form []string
	add := func(name, value string) { r.Header = append(r.Header, ruleset.Field{Name: name, Value: value}) }
	for _, forged := range some(t, "forged", []string{"x-watchword-caller", "x_watchword_issuer", "x-out-0", "x-also-0", "x-consumer-0", "x-payload", "x-watchword-key-0", "x-watchword-token-0"}, 0, 2) {
		add(forged, "forged")
	}
	if chance(t, "query", 4) {
		query = append(query, "q=1%23%0d%0a%20%26", "out0=forged")
	}
	if chance(t, "cookie", 4) {
		cookies = append(cookies, "theme=dark", "cout0=forged")
	}
	places := some(t, "token at", []int{0, 1, 2, 3, 4, 5, 6, 7}, 0, 2)
	if len(places) == 0 && !chance(t, "no token", 3) {
		places = []int{0}
	}
	for i, n := range places {
		token := w.token(t, fmt.Sprint("token ", i), now)
		if chance(t, fmt.Sprint("lax ", i), 30) {
			token = r.relax(t, token)
		}
		switch n {
		case 0:
			add("Authorization", pick(t, "scheme", []string{"Bearer ", "Bearer ", "Bearer ", "Basic "})+token)
		case 1:
			add("X-Token", token)
		case 2:
			query = append(query, "tok="+token)
		case 3:
			query = append(query, "ptok="+url.PathEscape("Bearer "+token))
		case 4:
			cookies = append(cookies, "session="+token)
		case 5:
			cookies = append(cookies, "pc=v1."+token)
		case 6:
			form = append(form, "ftok="+token)
		case 7:
			form = append(form, "pftok="+url.QueryEscape("JWT "+token))
		}
	}
	if len(query) > 0 {
		r.Path += "?" + strings.Join(query, "&")
	}
	if len(cookies) > 0 {
		add("Cookie", strings.Join(cookies, "; "))
	}
	if len(form) > 0 || chance(t, "form", 6) {
		r.Method = http.MethodPost
		add("Content-Type", "application/x-www-form-urlencoded")
		r.Body = []byte(strings.Join(append(form, "fout0=forged", "z=1"), "&"))
	}
	return r
}

// relax does to a token what Envoy is known to accept.
func (r *request) relax(t *rapid.T, token string) string {
	name := pick(t, "lax", []string{"base64", "empty_segments", "json_null"})
	r.lax = append(r.lax, name)
	switch name {
	case "base64":
		return token + "="
	case "empty_segments":
		return "." + token
	}
	return strings.Join([]string{"eyJhbGciOiJub25lIn0", b64.EncodeToString([]byte("null")), "AA"}, ".")
}

// token is for one of the rules of the world, and perhaps something is wrong
// with it.
func (w *world) token(t *rapid.T, label string, now time.Time) string {
	if chance(t, label+" seen before", 4) {
		return pick(t, label+" standing", w.pool.standing)
	}
	var whose []string
	for name := range w.signers {
		whose = append(whose, name)
	}
	slices.Sort(whose)
	who := pick(t, label+" whose", whose)
	s := pick(t, label+" signer", w.signers[who])
	iss, known := issuerClaims[who]
	if !known {
		iss = who
	}
	at := func(seconds int64) any { return now.Unix() + seconds }
	claims := map[string]any{
		"iss": iss, "sub": pick(t, label+" sub", subjects), "aud": pick(t, label+" aud", audiences), "exp": at(300), "iat": at(-5), "jti": pick(t, label+" jti", []string{"j", "j", "k", "a|b"}), "instance": pick(t, label+" instance", []any{"i1", "i2", 1}), "app": who, "nbf": at(-5),
		"n": pick(t, label+" n", []any{7, 8, 1.5, -3, "7"}), "flag": chance(t, label+" flag", 2), "scope": pick(t, label+" scope", []string{"", "x admin", "orders:read", " x  y ", "xx;y"}),
		"list": pick(t, label+" list", []any{[]string{"x", "y"}, []any{1, true}, "x", nil}), "realm": map[string]any{"role": pick(t, label+" role", []any{"admin", 7, []string{"admin"}})},
		"https://x.example/y.z": pick(t, label+" uri", []any{"x", "a b;c=\"d\"", true, " x"}),
	}
	header := map[string]any{"alg": s.alg, "kid": s.kid, "typ": pick(t, label+" typ", []string{"at+jwt", "JWT", "application/AT+jwt"})}
	if s.kid == "" || chance(t, label+" without kid", 6) {
		delete(header, "kid")
	}
	if chance(t, label+" key as kid", 6) {
		header["kid"] = who
	}
	w.spoil(t, label, claims, header, at, &s)
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	token := s.token(header, text)
	switch rapid.IntRange(0, 40).Draw(t, label+" text") {
	case 0:
		return token[:len(token)-6] + "AAAAAA"
	case 1:
		return "not-a-token"
	case 2:
		return "a.b.c"
	case 3:
		return ""
	}
	return token
}

// spoil makes perhaps one thing wrong.
func (w *world) spoil(t *rapid.T, label string, claims, header map[string]any, at func(int64) any, s **signer) {
	switch rapid.IntRange(0, 37).Draw(t, label+" spoilt") {
	case 0:
		claims["exp"] = at(-10)
	case 1:
		claims["exp"] = at(-45)
	case 2:
		claims["exp"] = at(-1000)
	case 3:
		delete(claims, "exp")
	case 4:
		claims["exp"] = 0
	case 5:
		claims["exp"] = at(2000)
	case 6:
		claims["exp"] = at(100000)
	case 7:
		claims["exp"] = json.Number("9223372036854775807")
	case 8:
		claims["exp"] = "soon"
	case 9:
		claims["nbf"] = at(20)
	case 10:
		claims["nbf"] = at(1000)
	case 11:
		delete(claims, "nbf")
	case 12:
		claims["iat"] = at(20)
	case 13:
		claims["iat"] = at(1000)
	case 14:
		claims["iat"] = "now"
	case 15:
		claims["iss"] = "https://unknown.example"
	case 16:
		delete(claims, "iss")
	case 17:
		claims["iss"] = 7
	case 18:
		delete(claims, "aud")
	case 19:
		claims["aud"] = []string{"other", "orders"}
	case 20:
		claims["sub"] = "a\r\nx-evil: 1"
	case 21:
		claims["sub"] = 7
	case 22:
		delete(claims, "sub")
	case 23:
		claims["evil"] = "a\nb"
	case 24:
		claims["evil"] = "fine"
	case 25:
		header["crit"] = []string{"x"}
	case 26:
		header["alg"] = "none"
	case 27:
		header["alg"] = "HS256"
	case 28:
		header["kid"] = "unknown"
	case 29:
		*s = w.pool.stranger
	case 30:
		delete(header, "typ")
	case 31:
		delete(claims, "jti")
	case 37:
		delete(claims, "iat")
	case 33:
		claims["nbf"] = at(1 << 40)
	case 34: // where there is no skew: a second in which Envoy's jwt_authn takes it
		claims["exp"] = at(-1)
	case 35:
		claims["nbf"] = at(1)
	case 32:
		header["iss"] = claims["iss"]
		delete(claims, "iss")
	}
}
