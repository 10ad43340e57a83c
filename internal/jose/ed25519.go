package jose

import (
	"crypto/ed25519"
	"errors"
	"math/big"
	"slices"
)

// The field and the constant d of edwards25519 (RFC 8032, section 5.1).
var (
	edP = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	edD = func() *big.Int {
		d := new(big.Int).ModInverse(big.NewInt(121666), edP)
		return d.Mod(d.Mul(d, big.NewInt(-121665)), edP)
	}()
)

// checkEd25519 refuses what is not a point, and the eight points of small order: with one
// of those as key a signature can be made for any message without a private key.
func checkEd25519(k ed25519.PublicKey) error {
	if len(k) != ed25519.PublicKeySize {
		return errors.New("x of Ed25519 must be 32 bytes")
	}
	le := slices.Clone(k)
	sign := le[31] >> 7
	le[31] &= 0x7f
	slices.Reverse(le)
	y := new(big.Int).SetBytes(le)
	if y.Cmp(edP) >= 0 {
		return errors.New("x is not a point on Ed25519")
	}
	// x² = (y² - 1) / (d y² + 1)
	yy := new(big.Int).Mod(new(big.Int).Mul(y, y), edP)
	den := new(big.Int).Mul(edD, yy)
	den.Mod(den.Add(den, big.NewInt(1)), edP)
	xx := new(big.Int).Sub(yy, big.NewInt(1))
	xx.Mul(xx, new(big.Int).ModInverse(den, edP)) // -1/d is no square, so den is never 0
	xx.Mod(xx, edP)
	if new(big.Int).ModSqrt(xx, edP) == nil || xx.Sign() == 0 && sign == 1 {
		return errors.New("x is not a point on Ed25519")
	}
	// Order 1 and 2 have x = 0, order 4 y = 0; doubling a point of order 8 gives y = 0, so x² + y² = 0.
	sum := new(big.Int).Add(xx, yy)
	if xx.Sign() == 0 || y.Sign() == 0 || sum.Mod(sum, edP).Sign() == 0 {
		return errors.New("x is an Ed25519 point of small order, for which anybody can sign; generate a new key")
	}
	return nil
}
