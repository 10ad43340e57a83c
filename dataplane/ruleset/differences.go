package ruleset

// Difference is a kind of request that this package, or what serves in front of it, and
// Envoy 1.40 treat differently.
type Difference struct {
	// Name to refer to it by.
	Name string
	// What Envoy does, what is done here, and why.
	Why string
}

// KnownDifferences are all of them, each seen on a real Envoy or (signature_size)
// measured before. Where the decisions differ, this package is the one that
// refuses. crit, typ, a missing exp and the lifetime are not here: Envoy's filters
// can be made to look at them.
var KnownDifferences = []Difference{
	// Where a token is.
	{"prefix_anywhere", "Envoy finds a value prefix anywhere in a header value (`Foo Bearer TOKEN`); here the value begins with it (RFC 6750 section 2.1), or there is no token"},
	{"text_before_token", "after a value prefix Envoy skips what is not base64url; here all that follows the prefix is the token"},

	// What a token is.
	{"empty_segments", "Envoy does not count empty segments, so that dots may stand before, after and twice between; here a token is three segments with two dots (RFC 7515 section 7.1)"},
	{"base64", "Envoy takes padding, white space and spare bits in base64url, also where a later check then fails with another word; here each segment has one spelling (RFC 7515 section 2)"},
	{"json_syntax", "Envoy takes trailing commas, single quotes, names without quotes, and control characters in strings; here claims are JSON (RFC 8259)"},
	{"json_null", "Envoy takes `null` for an object without claims; here claims are an object (RFC 7519 section 7.2)"},
	{"json_depth", "Envoy takes JSON down to 100 levels; here 32"},
	{"token_size", "Envoy takes a token as long as its limit for headers; here 16 KiB, of which 4 KiB are the decoded header"},
	{"typ_not_text", "Envoy takes a `typ` that is no text where the rule takes any type; here it is malformed (RFC 7515 section 4.1.9)"},
	{"b64_header", "Envoy does not know `b64` (RFC 7797); here it is a critical extension even where `crit` does not name it"},

	// Who signed it.
	{"signature_size", "Envoy verifies ECDSA signatures that are padded with zeros; here they have the size of the curve (RFC 7518 section 3.4)"},

	// What goes on to the service; the decision is the same.
	{"claim_json", "a list or an object is copied as JSON in base64; it is the same value, and Envoy has another order of members, other escapes and other spellings of large numbers"},
}

// ServerDifferences are those of a Go server in front of a ruleset, also that of the
// sidecar: no ruleset is asked about such a request.
var ServerDifferences = []Difference{
	{"path_escapes", "an Envoy that normalises nothing takes an escape in a path that is none (`/%zz`), decides, and hands it on; net/http answers 400, as a managed Envoy does"},
}
