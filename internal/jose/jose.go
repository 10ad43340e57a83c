// Package jose reads keys and tokens as strictly as a security boundary must, and signs.
//
// The model: a Key verifies one algorithm and nothing else, and is checked once, when it
// is parsed; a Key that exists is sound. A token never says how it is verified: its alg
// and kid only pick among the Keys that the caller trusts. What peers may read in two ways
// (duplicate members, padding, white space, crit) is refused, not interpreted.
//
// Keys come from a JWK set (ParseSet, RFC 7517) or PEM (ParsePEM); private keys are
// generated here or read from PKCS #8. Verify checks signature and header; what claims
// mean (exp, aud, ...) is the business of others.
//
// This is the only package that imports jwx, so that its successor is a change in one
// place. jwx decodes single keys; everything it is lax about is checked here, around it.
package jose
