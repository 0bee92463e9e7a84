// Package promtext gets one number out of metrics in Prometheus' text format, by a selector such as
// `jobs_waiting{queue=~"mail|push"}`. It reads the classic format, and of OpenMetrics what is like it, as a stream: memory does
// not grow with the document, and work is bounded. Both the document and the selector are foreign. It does no I/O.
package promtext

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"golang.org/x/sync/semaphore"

	"github.com/kubetide/kubetide/internal/jsonvalue"
	"github.com/kubetide/kubetide/internal/promql"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	// Accept is the header that asks a server for what this package reads best.
	Accept = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.9,text/plain;version=0.0.4;q=0.8,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"

	// maxSelector is the length of a selector in bytes.
	maxSelector = 1024
	// maxLine is the length of a line in bytes. Longer comments and lines of other metrics are skipped.
	maxLine = 64 << 10
	// shortLine is how long nearly all lines are at most, and the memory that a document takes without longer ones.
	shortLine = 8 << 10
	// maxLong is how many longer lines of wanted series are held at once.
	maxLong = 8

	// maxLabels is how many labels a wanted series may have.
	maxLabels = 100
	// maxWork bounds the regular expressions of one evaluation, in bytes of label values times instructions of the pattern:
	// some tenths of a second at worst, and a hundred times what 10,000 series with an ordinary pattern take.
	maxWork = 1 << 26
)

// Expression is a selector, and what is made of several series. It may be used by several goroutines at once.
type Expression struct {
	name       string
	matchers   []matcher
	aggregator jsonvalue.Aggregator
}

// matcher is a labels.Matcher whose work can be bounded: Prometheus' own ones for patterns try more than Go's do.
type matcher struct {
	label   string
	value   string
	pattern *regexp.Regexp // nil: the label must equal value
	cost    int            // the pattern's instructions
	negated bool
}

// Parse reads a selector as PromQL has it: a metric's name, and matchers with =, !=, =~ and !~. The name must be exact. The
// aggregator is needed where several series match.
func Parse(selector string, aggregator jsonvalue.Aggregator) (*Expression, error) {
	selector = strings.TrimSpace(selector)
	switch {
	case selector == "":
		return nil, errors.New("it is empty")
	case len(selector) > maxSelector:
		return nil, fmt.Errorf("it is %d bytes long, the limit is %d", len(selector), maxSelector)
	}
	if _, err := promql.Parse(selector); err != nil { // it bounds what the patterns take
		return nil, fmt.Errorf("it %w", err)
	}
	parsed, err := parser.ParseMetricSelector(selector)
	if err != nil {
		return nil, fmt.Errorf(`it is no selector such as jobs{queue="mail"}: %.200s`, err.Error())
	}
	e := &Expression{aggregator: aggregator}
	for _, m := range parsed {
		if m.Name == model.MetricNameLabel {
			if m.Type != labels.MatchEqual || m.Value == "" || e.name != "" {
				return nil, errors.New("it must name one metric exactly")
			}
			e.name = m.Value
			continue
		}
		own := matcher{label: m.Name, value: m.Value, negated: m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp}
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			if err := own.compile(); err != nil {
				return nil, fmt.Errorf("the pattern of %.100q: %w", m.Name, err)
			}
		}
		e.matchers = append(e.matchers, own)
	}
	if e.name == "" {
		return nil, errors.New("it must name one metric exactly")
	}
	// What costs nothing decides first.
	slices.SortStableFunc(e.matchers, func(a, b matcher) int { return a.cost - b.cost })
	return e, nil
}

func (m *matcher) compile() (err error) {
	anchored := "^(?s:" + m.value + ")$" // as in PromQL
	if m.pattern, err = regexp.Compile(anchored); err != nil {
		return err
	}
	tree, err := syntax.Parse(anchored, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return err
	}
	m.cost = len(program.Inst)
	return nil
}

// Evaluate returns the value of the series that the selector matches, in thousandths, truncating what is finer. No such series,
// and one that is not finite, are sample.ErrNoData. What cannot be read is an error that names its line.
func (e *Expression) Evaluate(ctx context.Context, document io.Reader) (milli int64, err error) {
	milli, _, err = e.EvaluateAt(ctx, document, time.Time{})
	return milli, err
}

// EvaluateAt is Evaluate, and says how old the oldest of the series is at now by its own timestamp; 0 without timestamps.
func (e *Expression) EvaluateAt(ctx context.Context, document io.Reader, now time.Time) (milli int64, age time.Duration, err error) {
	r := readings.Get().(*reading)
	*r = reading{Expression: e, lines: r.lines, labels: r.labels, unquoted: r.unquoted, work: maxWork, now: now}
	r.lines.Reset(document)
	defer func() {
		r.lines.Reset(nil)
		if r.long != nil {
			r.long = nil
			long.Release(1)
		}
		if cap(r.unquoted) > shortLine {
			r.unquoted = nil
		}
		readings.Put(r)
	}()
	for {
		line, err := r.next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return r.result()
		case err != nil:
			return 0, 0, err
		}
		if err := r.take(line); err != nil {
			return 0, 0, fmt.Errorf("line %d: %w", r.number, err)
		}
	}
}

var readings = sync.Pool{New: func() any { return &reading{lines: bufio.NewReaderSize(nil, shortLine)} }}

// reading is one evaluation.
type reading struct {
	*Expression
	lines    *bufio.Reader
	number   int     // of the line
	long     []byte  // a long line
	labels   []label // of the line
	unquoted []byte  // what labels with escapes refer to
	work     int
	now      time.Time

	series           int
	sum, least, most float64
	age              float64 // in seconds
}

// label is valid until the next line.
type label struct{ name, value []byte }

// end is the last line of OpenMetrics; it may lack its own end.
const end = "# EOF"

// next returns the next line that may hold a wanted series, without its end; io.EOF after the last line, and after the mark
// with which OpenMetrics ends.
func (r *reading) next(ctx context.Context) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.number++
		line, err := r.lines.ReadSlice('\n')
		text := bytes.TrimLeft(line, " \t")
		wanted := len(text) > 0 && (text[0] == '{' || r.named(text))
		if errors.Is(err, bufio.ErrBufferFull) {
			if wanted {
				if text, err = r.longLine(text); text == nil {
					return nil, fmt.Errorf("line %d %w", r.number, err)
				}
			} else {
				for errors.Is(err, bufio.ErrBufferFull) {
					_, err = r.lines.ReadSlice('\n')
				}
				text = []byte("#")
			}
		}
		switch {
		case errors.Is(err, io.EOF) && len(text) > 0 && string(text) != end:
			return nil, errors.New("the last line has no end, so the answer may be cut off")
		case err != nil:
			return nil, err
		case text[0] == '\n':
		case text[0] == '#':
			if string(text[:len(text)-1]) == end {
				return nil, io.EOF
			}
		case text[0] != '{' && text[0] != '_' && text[0] != ':' && (text[0]|0x20 < 'a' || text[0]|0x20 > 'z'):
			return nil, fmt.Errorf("line %d is not in Prometheus' text format: it begins with %q", r.number, text[0])
		case wanted:
			return text[:len(text)-1], nil
		}
	}
}

// long has the places of long lines.
var long = semaphore.NewWeighted(maxLong)

// longLine reads the rest of a line, whose place is kept until the evaluation ends.
func (r *reading) longLine(start []byte) (line []byte, err error) {
	if r.long == nil {
		if !long.TryAcquire(1) { // who waits would wait for documents that come drop by drop
			return nil, fmt.Errorf("has more than %d bytes, and %d such lines are being read already", shortLine, maxLong)
		}
		r.long = make([]byte, 0, maxLine)
	}
	line = r.long[:copy(r.long[:cap(r.long)], start)]
	for err = bufio.ErrBufferFull; errors.Is(err, bufio.ErrBufferFull); {
		var more []byte
		more, err = r.lines.ReadSlice('\n')
		if len(line)+len(more) > maxLine {
			return nil, fmt.Errorf("is longer than %d bytes", maxLine)
		}
		line = append(line, more...)
	}
	return line, err
}

// named says whether the line begins with the wanted metric's name.
func (r *reading) named(text []byte) bool {
	n := len(r.name)
	return len(text) > n && string(text[:n]) == r.name && (text[n] == '{' || text[n] == ' ' || text[n] == '\t')
}

// take reads the line, and counts its series in if it is wanted.
func (r *reading) take(line []byte) error {
	name, rest, err := r.readLabels(line)
	if err != nil {
		return err
	}
	word, rest := cut(rest)
	value, err := float(word)
	if err != nil {
		return fmt.Errorf("the value %w", err)
	}
	var stamp float64
	word, rest = cut(rest)
	stamped := len(word) > 0 && word[0] != '#' // what follows a # is an exemplar of OpenMetrics
	if stamped {
		if stamp, err = float(word); err != nil || math.IsNaN(stamp) {
			return fmt.Errorf("the timestamp %.40q is no number", word)
		}
		if len(rest) > 0 && rest[0] != '#' {
			return errors.New("there is more than a value and a timestamp")
		}
	}
	if string(name) != r.name {
		return nil
	}
	matched, err := r.match()
	switch {
	case err != nil || !matched:
		return err
	case math.IsNaN(value) || math.IsInf(value, 0):
		return sample.NoData("a series that matches has the value %v, which is no number to scale by", value)
	}
	if r.series++; r.series == 1 {
		r.least, r.most = value, value
	} else if r.aggregator == "" {
		return errors.New("a second series matches, and no aggregator function has been specified")
	}
	r.sum, r.least, r.most = r.sum+value, min(r.least, value), max(r.most, value)
	if stamped {
		if math.Abs(stamp) > 1e11 { // the classic format has milliseconds, OpenMetrics has seconds
			stamp /= 1000
		}
		r.age = max(r.age, float64(r.now.UnixMilli())/1000-stamp)
	}
	return nil
}

// readLabels reads the name and r.labels, and returns what follows them.
func (r *reading) readLabels(line []byte) (name, rest []byte, err error) {
	r.labels, r.unquoted = r.labels[:0], r.unquoted[:0]
	if line[0] != '{' {
		n := len(r.name) // line is named
		name, rest = line[:n], bytes.TrimLeft(line[n:], " \t")
		if len(rest) == 0 || rest[0] != '{' {
			return name, rest, nil
		}
	} else {
		rest = line
	}
	rest = bytes.TrimLeft(rest[1:], " \t")
	for {
		switch {
		case len(rest) == 0:
			return nil, nil, errors.New("its labels have no closing brace")
		case rest[0] == '}':
			return name, bytes.TrimLeft(rest[1:], " \t"), nil
		}
		l, quoted := label{}, rest[0] == '"'
		if quoted {
			l.name, rest, err = r.unquote(rest)
		} else {
			n := bytes.IndexAny(rest, "= \t,}\"")
			if n <= 0 {
				return nil, nil, errors.New("a label has no name")
			}
			l.name, rest = rest[:n], rest[n:]
		}
		if err != nil {
			return nil, nil, err
		}
		rest = bytes.TrimLeft(rest, " \t")
		switch {
		case len(rest) > 0 && rest[0] == '=':
			if l.value, rest, err = r.unquote(bytes.TrimLeft(rest[1:], " \t")); err != nil {
				return nil, nil, err
			}
			if len(r.labels) == maxLabels {
				return nil, nil, fmt.Errorf("it has more than %d labels", maxLabels)
			}
			if slices.ContainsFunc(r.labels, func(other label) bool { return bytes.Equal(other.name, l.name) }) {
				return nil, nil, fmt.Errorf("the label %.100q is there twice", l.name)
			}
			r.labels = append(r.labels, l)
		case quoted && name == nil:
			name = l.name
		default:
			return nil, nil, fmt.Errorf("the label %.100q has no value", l.name)
		}
		rest = bytes.TrimLeft(rest, " \t")
		if len(rest) > 0 && rest[0] == ',' {
			rest = bytes.TrimLeft(rest[1:], " \t")
		} else if len(rest) > 0 && rest[0] != '}' {
			return nil, nil, fmt.Errorf("after the label %.100q there is neither a comma nor a closing brace", l.name)
		}
	}
}

// unquote reads a quoted text. Only one with escapes is copied.
func (r *reading) unquote(text []byte) (value, rest []byte, err error) {
	if len(text) == 0 || text[0] != '"' {
		return nil, nil, errors.New("a label's value is not in quotes")
	}
	text = text[1:]
	start := len(r.unquoted)
	for from := 0; ; {
		n := bytes.IndexAny(text[from:], "\"\\")
		if n < 0 || text[from+n] == '\\' && from+n+1 == len(text) {
			return nil, nil, errors.New("a quote is not closed")
		}
		end := from + n
		if text[end] == '"' {
			if len(r.unquoted) == start {
				return text[:end], text[end+1:], nil
			}
			r.unquoted = append(r.unquoted, text[from:end]...)
			return r.unquoted[start:], text[end+1:], nil
		}
		r.unquoted = append(r.unquoted, text[from:end]...)
		switch c := text[end+1]; c {
		case 'n':
			r.unquoted = append(r.unquoted, '\n')
		case '"', '\\':
			r.unquoted = append(r.unquoted, c)
		default:
			return nil, nil, fmt.Errorf("a quoted text has the escape \\%c, which there is not", c)
		}
		from = end + 2
	}
}

// match says whether the labels are wanted. A label that is not there is an empty one, as in PromQL.
func (r *reading) match() (bool, error) {
	for _, m := range r.matchers {
		var value []byte
		for _, l := range r.labels {
			if string(l.name) == m.label {
				value = l.value
			}
		}
		var matches bool
		if m.pattern == nil {
			matches = string(value) == m.value
		} else {
			if r.work -= m.cost * (1 + len(value)); r.work < 0 {
				return false, errors.New("the selector's patterns are too costly for so many labels of such length")
			}
			matches = m.pattern.Match(value)
		}
		if matches == m.negated {
			return false, nil
		}
	}
	return true, nil
}

func (r *reading) result() (milli int64, age time.Duration, err error) {
	value := r.sum // which is also that of a single series
	switch r.aggregator {
	case "avg":
		value /= float64(r.series)
	case "min":
		value = r.least
	case "max":
		value = r.most
	}
	if r.series == 0 {
		return 0, 0, sample.NoData("no series of the metric %.200q matches", r.name)
	}
	milli, err = sample.Milli(value)
	return milli, time.Duration(min(r.age, maxAge.Seconds()) * float64(time.Second)), err
}

// maxAge is more than anybody asks about, and fits into a time.Duration.
const maxAge = 100 * 365 * 24 * time.Hour

// cut returns the first word and what follows it.
func cut(text []byte) (word, rest []byte) {
	n := bytes.IndexAny(text, " \t")
	if n < 0 {
		return text, nil
	}
	return text[:n], bytes.TrimLeft(text[n:], " \t")
}

// float reads a number as the text format has it, which is Go's without hexadecimal digits and underscores.
func float(word []byte) (float64, error) {
	f, err := strconv.ParseFloat(string(word), 64)
	if err != nil || bytes.ContainsAny(word, "pP_") {
		return 0, fmt.Errorf("%.40q is no number", word)
	}
	return f, nil
}
