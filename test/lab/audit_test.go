package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// auditFile is an audit log that grows by answers each ten milliseconds after the one before, of which neighbors change places.
type auditFile struct {
	name     string
	begins   time.Time
	disorder int         // how many lines apart neighbors may be
	written  []time.Time // by line
}

var firstAnswer = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// answer is one of half a kilobyte; where it stands, and not when it was, is its URI.
func answer(line int, at time.Time) string {
	return fmt.Sprintf(`{"kind":"Event","stage":"ResponseComplete","requestURI":"%d","verb":"get","user":{"username":"%s"},"userAgent":"\"stageTimestamp\":\"2999-01-01T00:00:00.000000Z\"",`+
		`"responseStatus":{"metadata":{},"code":200},"stageTimestamp":"%s","annotations":{"authorization.k8s.io/decision":"allow"}}`+"\n",
		line, strings.Repeat("u", 300), at.Format("2006-01-02T15:04:05.000000Z07:00"))
}

func (f *auditFile) append(t *testing.T, text string) {
	t.Helper()
	file, err := os.OpenFile(f.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (f *auditFile) grow(t *testing.T, lines int) {
	t.Helper()
	from := len(f.written)
	for i := range lines {
		f.written = append(f.written, f.begins.Add(time.Duration(from+i)*10*time.Millisecond))
	}
	for range lines {
		i := from + rand.IntN(lines)
		j := min(i+rand.IntN(f.disorder+1), from+lines-1)
		f.written[i], f.written[j] = f.written[j], f.written[i]
	}
	var text strings.Builder
	for i := from; i < len(f.written); i++ {
		text.WriteString(answer(i, f.written[i]))
	}
	f.append(t, text.String())
}

// since are the lines answered at the time or later.
func (f *auditFile) since(since time.Time) (lines []string) {
	for i, at := range f.written {
		if !at.Before(since) {
			lines = append(lines, fmt.Sprint(i))
		}
	}
	return lines
}

func (f *auditFile) wantRead(t *testing.T, log *audited, since time.Time) {
	t.Helper()
	var got []string
	for r, err := range log.read(f.name, since) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.URI)
	}
	if want := f.since(since); !slices.Equal(got, want) {
		t.Fatalf("since %v: %d answers are read, want %d: lines %v, want %v", since.Sub(f.begins), len(got), len(want), got[:min(9, len(got))], want[:min(9, len(want))])
	}
}

func TestTheAuditLogIsReadFromWhereItMatters(t *testing.T) {
	newFile := func(t *testing.T) *auditFile {
		return &auditFile{name: filepath.Join(t.TempDir(), "audit.jsonl"), begins: firstAnswer, disorder: 200}
	}

	t.Run("each answer since a time, in the file's order, while the log grows", func(t *testing.T) {
		f, log := newFile(t), &audited{}
		for range 7 {
			f.grow(t, 1000)
			end := time.Duration(len(f.written)) * 10 * time.Millisecond
			f.wantRead(t, log, firstAnswer.Add(rand.N(end)))
			f.wantRead(t, log, firstAnswer.Add(end-time.Second))
			for _, err := range log.read(f.name, firstAnswer.Add(rand.N(end))) {
				if err != nil {
					t.Error(err)
				}
				break // who has seen enough
			}
		}
		f.wantRead(t, log, time.Time{})
		f.wantRead(t, log, firstAnswer.Add(24*time.Hour))
		if len(log.known) < 3 {
			t.Errorf("of %d lines only %d places are known", len(f.written), len(log.known))
		}
	})

	t.Run("each answer since a place, from it and the line before on", func(t *testing.T) {
		f, log := newFile(t), &audited{}
		f.disorder = 0
		f.grow(t, 8000)
		f.wantRead(t, log, firstAnswer.Add(79*time.Second))
		if len(log.known) < 3 {
			t.Errorf("of %d lines only %d places are known", len(f.written), len(log.known))
		}
		for _, p := range log.known {
			f.wantRead(t, log, p.latest)
			f.wantRead(t, log, p.latest.Add(1))
		}
	})

	t.Run("what is older is not read again", func(t *testing.T) {
		f, log := newFile(t), &audited{}
		f.grow(t, 10_000)
		last := firstAnswer.Add(99 * time.Second)
		f.wantRead(t, log, last)
		// From here on it would be seen to be read: it is younger now, but for two mebibytes at the end.
		info, err := os.Stat(f.name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(f.name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		younger := answer(0, last.Add(time.Hour))
		if _, err := file.WriteAt([]byte(strings.Repeat(younger, int(info.Size()-2<<20)/len(younger))), 0); err != nil {
			t.Fatal(err)
		}
		f.wantRead(t, log, last)
		f.grow(t, 100)
		f.wantRead(t, log, last)
		for r, err := range (&audited{}).read(f.name, last) {
			if err != nil {
				t.Fatal(err)
			}
			if r.URI == "0" {
				return
			}
		}
		t.Error("nobody sees what was written over: this was no test")
	})

	t.Run("a line that is half written is read when it is whole", func(t *testing.T) {
		f, log := newFile(t), &audited{}
		f.grow(t, 4000)
		at := firstAnswer.Add(time.Hour)
		whole, n := answer(len(f.written), at), 0
		for _, more := range []int{10, 300, len(whole) - 313} {
			f.append(t, whole[n:n+more])
			n += more
			f.wantRead(t, log, firstAnswer)
			f.wantRead(t, log, firstAnswer.Add(39*time.Second))
		}
		f.append(t, whole[n:])
		f.written = append(f.written, at)
		f.wantRead(t, log, firstAnswer.Add(39*time.Second))
	})

	t.Run("a line torn by a killed server is nobody's", func(t *testing.T) {
		f, log := newFile(t), &audited{}
		f.grow(t, 1500)
		f.append(t, answer(-1, firstAnswer)[:450]+answer(-2, firstAnswer.Add(time.Hour)))
		torn := len(f.written)
		f.written = append(f.written, time.Time{})
		f.grow(t, 3000)
		for _, n := range []time.Duration{1, 14, 16, 40} {
			f.wantRead(t, log, firstAnswer.Add(n*time.Second))
		}
		if f.written[torn] != (time.Time{}) {
			t.Error("the test has moved the torn line")
		}
	})

	t.Run("another file is read from its beginning", func(t *testing.T) {
		f, log := newFile(t), &audited{}
		f.grow(t, 5000)
		f.wantRead(t, log, firstAnswer.Add(49*time.Second))
		if err := os.Rename(f.name, f.name+".1"); err != nil {
			t.Fatal(err)
		}
		f.written, f.begins = nil, firstAnswer.Add(time.Hour)
		f.grow(t, 4000)
		f.wantRead(t, log, f.begins.Add(time.Second))
	})
}
