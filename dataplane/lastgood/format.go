package lastgood

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// The file is a line that says what it is and of which form, the SHA-256 of all
// else, and a Content in JSON. The checksum is against disks and half-written
// files: who can write the file as its owner can do anything here.
const (
	header = "watchword last good 1\n"
	prefix = len(header) + sha256.Size
)

func encode(c Content) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if prefix+len(body) > maxSize {
		return nil, fmt.Errorf("they are %d bytes, and may be %d", prefix+len(body), maxSize)
	}
	sum := checksum(body)
	return bytes.Join([][]byte{[]byte(header), sum[:], body}, nil), nil
}

func decode(raw []byte) (Content, error) {
	if len(raw) < prefix || !bytes.HasPrefix(raw, []byte(header)) {
		return Content{}, fmt.Errorf("%w: it is cut off, or no such file, or of another version of Watchword; remove it", ErrCorrupt)
	}
	body := raw[prefix:]
	if checksum(body) != [sha256.Size]byte(raw[len(header):prefix]) {
		return Content{}, fmt.Errorf("%w: its checksum is wrong; remove it", ErrCorrupt)
	}
	var c Content
	if err := json.Unmarshal(body, &c); err != nil {
		return Content{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return c, nil
}

// checksum is over the header, too.
func checksum(body []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(header))
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}
