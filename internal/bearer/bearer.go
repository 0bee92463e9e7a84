// Package bearer holds the tokens that the operator gave for systems of his own: by themselves, or in files that somebody
// else renews. It reads these files and nothing else.
package bearer

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kubetide/kubetide/internal/outbound"
)

const maxToken = 16 << 10

// Token is one token. The zero value is none.
type Token struct {
	// Text is the token itself. It goes before File.
	Text string
	// File holds the token, and is read each time that it is needed.
	File string
}

// Named returns the token of the name in a folder of credentials, laid out as platform IAM does it: the file
// NAME-token-secret. A text goes before that.
func Named(text, folder, name string) Token {
	if text != "" || folder == "" || name == "" {
		return Token{Text: text}
	}
	return Token{File: filepath.Join(folder, name+"-token-secret")}
}

// For returns the credentials to send to the host now; nil if there is no token. Errors name the file.
func (t Token) For(host string) (*outbound.Credentials, error) {
	text := t.Text
	if text == "" && t.File != "" {
		file, err := os.Open(t.File)
		if err != nil {
			return nil, fmt.Errorf("the token for %s: %w", host, err)
		}
		defer func() { _ = file.Close() }()
		content, err := io.ReadAll(io.LimitReader(file, maxToken+1))
		if err != nil {
			return nil, fmt.Errorf("the token for %s: %w", host, err)
		}
		text = string(bytes.TrimSpace(content))
		if text == "" || len(content) > maxToken || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return nil, fmt.Errorf("the token for %s: %s does not hold one word of at most %d bytes", host, t.File, maxToken)
		}
	}
	if text == "" {
		return nil, nil
	}
	return &outbound.Credentials{Host: host, Token: text}, nil
}
