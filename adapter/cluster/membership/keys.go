package membership

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/memberlist"
)

const (
	maxKeys     = 16
	maxKeysFile = 4096
)

// readKeys reads base64 keys of 16, 24 or 32 bytes, one a line. Errors do not quote what the file holds.
func readKeys(path string) ([][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var keys [][]byte
	lines := bufio.NewScanner(io.LimitReader(file, maxKeysFile))
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil || memberlist.ValidateKey(key) != nil {
			return nil, fmt.Errorf("%s: line %d is not a base64 key of 16, 24 or 32 bytes", path, n)
		}
		keys = append(keys, key)
	}
	switch {
	case lines.Err() != nil:
		return nil, fmt.Errorf("%s: %w", path, lines.Err())
	case len(keys) == 0:
		return nil, errors.New(path + " has no key")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("%s has more than %d keys", path, maxKeys)
	}
	return keys, nil
}

// setKeys makes the ring hold just the keys, in their order. Only the last key of a ring can be removed while others read it: the library
// moves the rest within the slice that it has handed out.
func setKeys(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	for i := range keys {
		if err := ring.UseKey(keys[len(keys)-1-i]); err != nil {
			return err
		}
	}
	for old := ring.GetKeys(); len(old) > len(keys); old = ring.GetKeys() {
		if err := ring.RemoveKey(old[len(old)-1]); err != nil {
			return err
		}
	}
	return nil
}
