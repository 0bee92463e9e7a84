package bearer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/internal/outbound"
)

func TestFor(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("zmon-token-secret", "first\n")
	write("empty-token-secret", "\n")
	write("long-token-secret", strings.Repeat("x", maxToken+1))
	write("words-token-secret", "two words")
	for name, c := range map[string]struct {
		token Token
		want  string
		err   string
	}{
		"none":                         {Token{}, "", ""},
		"a text":                       {Named("text", folder, "zmon"), "text", ""},
		"a file, without its line end": {Named("", folder, "zmon"), "first", ""},
		"no folder":                    {Named("", "", "zmon"), "", ""},
		"a file that is not there":     {Named("", folder, "other"), "", "the token for host:1: open " + folder + "/other-token-secret: no such file"},
		"an empty file":                {Named("", folder, "empty"), "", "empty-token-secret does not hold one word"},
		"a file too long":              {Named("", folder, "long"), "", "does not hold one word"},
		"a file with two words":        {Named("", folder, "words"), "", "does not hold one word"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.token.For("host:1")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "two") {
					t.Errorf("got %v, %v; want %q", got, err, c.err)
				}
				return
			}
			var want *outbound.Credentials
			if c.want != "" {
				want = &outbound.Credentials{Host: "host:1", Token: c.want}
			}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
	token := Named("", folder, "zmon")
	write("zmon-token-secret", "second")
	if got, err := token.For("host:1"); err != nil || got.Token != "second" {
		t.Errorf("after a renewal: %v, %v", got, err)
	}
}
