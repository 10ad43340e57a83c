package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"hash"
)

func (a *algorithm) digest(input []byte) []byte {
	h := a.hash.New()
	h.Write(input)
	return h.Sum(nil)
}

func (d *keyData) verify(signed string, sig []byte) bool {
	if d.alg.size != 0 && len(sig) != d.alg.size {
		return false
	}
	input := []byte(signed)
	switch d.alg.family {
	case familyHMAC:
		return d.verifyMAC(input, sig)
	case familyPKCS1:
		return rsa.VerifyPKCS1v15(d.mat.raw.(*rsa.PublicKey), d.alg.hash, d.alg.digest(input), sig) == nil
	case familyPSS:
		// RFC 7518, section 3.5: the salt is as long as the hash.
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(d.mat.raw.(*rsa.PublicKey), d.alg.hash, d.alg.digest(input), sig, opts) == nil
	case familyECDSA:
		half := len(sig) / 2
		var der [150]byte // of a signature over P-521, at most 139
		return ecdsa.VerifyASN1(d.mat.raw.(*ecdsa.PublicKey), d.alg.digest(input), appendDER(der[:0], sig[:half], sig[half:]))
	case familyEdDSA:
		return ed25519.Verify(d.mat.raw.(ed25519.PublicKey), input, sig)
	}
	return false
}

// verifyMAC takes a hash that has the secret in it already, which is half of the work.
func (d *keyData) verifyMAC(input, sig []byte) bool {
	h, ok := d.macs.Get().(hash.Hash)
	if !ok {
		h = hmac.New(d.alg.hash.New, d.mat.raw.([]byte))
	}
	h.Reset()
	h.Write(input)
	var sum [64]byte // of SHA-512
	equal := hmac.Equal(h.Sum(sum[:0]), sig)
	d.macs.Put(h)
	return equal
}

// appendDER writes an ECDSA signature as crypto/ecdsa reads it: a SEQUENCE of two
// INTEGERs (RFC 3279, section 2.2.3), from r and s as RFC 7518, section 3.4, has them.
func appendDER(out, r, s []byte) []byte {
	r, s = unsigned(r), unsigned(s)
	length := integerSize(r) + integerSize(s)
	out = append(out, 0x30)
	if length > 127 {
		out = append(out, 0x81)
	}
	out = append(out, byte(length))
	return appendInteger(appendInteger(out, r), s)
}

// unsigned leaves out zeros before a number; one byte is left of 0.
func unsigned(n []byte) []byte {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	return n
}

func integerSize(n []byte) int { return 2 + len(n) + int(n[0]>>7) }

func appendInteger(out, n []byte) []byte {
	out = append(out, 0x02, byte(integerSize(n)-2))
	if n[0]&0x80 != 0 {
		out = append(out, 0) // else it would be negative
	}
	return append(out, n...)
}
