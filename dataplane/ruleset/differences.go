package ruleset

// Difference is a request that this package and Envoy 1.40 decide differently.
type Difference struct {
	// Name to refer to it by.
	Name string
	// What Envoy does, and what is done here.
	Why string
}

// KnownDifferences are all of them. In each this package is the stricter one,
// unless it says otherwise. Measured, or read in Envoy's source; none can be
// closed by a filter.
var KnownDifferences = []Difference{
	// Where a token is.
	{"prefix_anywhere", "Envoy finds a value prefix anywhere in a header value (`Foo Bearer TOKEN`); here the value begins with it (RFC 6750 section 2.1), or there is no token"},
	{"text_around_token", "after a value prefix Envoy skips what is not base64url before the token, and what follows it; here all that follows the prefix is the token"},

	// What a token is.
	{"empty_segments", "Envoy ignores dots at the beginning, at the end and in a row; here a token is three segments with two dots (RFC 7515 section 7.1)"},
	{"base64", "Envoy takes padding, white space and spare bits in base64url; here each segment has one spelling (RFC 7515 section 2)"},
	{"json_syntax", "Envoy takes trailing commas, single quotes, unquoted names and texts that are not UTF-8; here it is JSON (RFC 8259) without halves of surrogate pairs"},
	{"json_depth", "Envoy takes JSON down to 100 levels; here 32"},
	{"token_size", "Envoy takes tokens as long as its limit for headers; here 16 KiB, and 4 KiB of decoded header"},
	{"typ_not_text", "Envoy takes a `typ` that is no text where no types are asked for; here it is malformed (RFC 7515 section 4.1.9)"},
	{"b64_header", "Envoy ignores a `b64` without `crit` (RFC 7797); here it is a critical extension whichever way it comes"},

	// Who signed it.
	{"signature_size", "Envoy verifies ECDSA signatures that are padded with zeros or split in unequal halves; here they have the size of the curve (RFC 7518 section 3.4)"},
	{"rsa_below_1024", "Envoy verifies with RSA keys below 1024 bits; here a ruleset that has one is refused"},

	// What goes on to the service.
	{"query_rewritten", "where a token was in the query, Envoy writes the rest of the query anew, in the order of names; here nothing else changes"},
	{"outputs_of_all_tokens", "where a rule found several tokens, Envoy adds the output headers of each; here those of the first, which is the caller"},
	{"claim_json", "a list or an object is copied as JSON in base64, and Envoy's spelling of it has another order of members and other escapes"},
	{"claim_precision", "Envoy prints numbers inside lists and objects with fewer digits from 10^15 on"},

	// Hosts.
	{"host_letters", "where rules look at hosts, Envoy takes a letter that folds to an ASCII one (U+017F, U+212A) for it; here such a host is ambiguous"},
	{"path_not_utf8", "where rules look at paths, Envoy's regular expressions do not see past bytes that are not UTF-8; here the rest of such a path is looked at, too"},
}
