// Package traffic holds how requests are shared out among backends: skipper's traffic segments, read and printed, and the
// PromQL that counts the requests to hosts. It is pure: it does no I/O and knows no Kubernetes objects.
package traffic

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// name is that of skipper's predicate.
const name = "TrafficSegment"

// Segment is a range [Lo, Hi) of the random number from 0 to 1 that skipper draws for each request, the same one for all
// segments: 0 ≤ Lo ≤ Hi ≤ 1. One without width gets no request.
type Segment struct{ Lo, Hi float64 }

// All is the segment that every request falls into.
var All = Segment{Lo: 0, Hi: 1}

// Width is the share of the requests that fall into the segment, from 0 to 1.
func (s Segment) Width() float64 { return s.Hi - s.Lo }

// Intersect returns what both segments have in common; where that is nothing, a segment without width.
func (s Segment) Intersect(o Segment) Segment {
	both := Segment{Lo: max(s.Lo, o.Lo), Hi: min(s.Hi, o.Hi)}
	both.Hi = max(both.Hi, both.Lo)
	return both
}

// String prints the predicate with two decimals, as StackSets have it.
func (s Segment) String() string { return fmt.Sprintf("%s(%.2f, %.2f)", name, s.Lo, s.Hi) }

// Find reads the segment out of skipper's predicates, each of which may be several joined with &&. All of them hold for a
// request at once, so of several segments it is the intersection that counts. found is false if there is none.
func Find(predicates ...string) (segment Segment, found bool, err error) {
	segment = All
	for _, text := range predicates {
		if !strings.Contains(text, name) {
			continue
		}
		for rest := text; rest != ""; {
			var word string
			if word, rest, err = next(rest); err != nil {
				return Segment{}, false, fmt.Errorf("predicate %q: %w", shorten(text), err)
			}
			if word != name {
				continue
			}
			var one Segment
			if one, rest, err = arguments(rest); err != nil {
				return Segment{}, false, fmt.Errorf("predicate %q: %w", shorten(text), err)
			}
			segment, found = segment.Intersect(one), true
		}
	}
	if !found {
		return Segment{}, false, nil
	}
	return segment, true, nil
}

var errUnfinished = errors.New("a string, a regular expression or a list of arguments has no end")

// next returns the first word of the text, or "" for anything else, and what comes after it. It knows as much of skipper's
// language as is needed not to take a part of a string, a regular expression or a comment for a word.
func next(text string) (word, rest string, err error) {
	switch c := text[0]; {
	case c == '"' || c == '`':
		rest, err = after(text[1:], c, false)
		return "", rest, err
	case c == '/' && strings.HasPrefix(text, "//"):
		_, rest, _ = strings.Cut(text, "\n")
		return "", rest, nil
	case c == '/':
		rest, err = after(text[1:], c, true)
		return "", rest, err
	case wordPart(c):
		end := 1
		for end < len(text) && wordPart(text[end]) {
			end++
		}
		return text[:end], text[end:], nil
	}
	return "", text[1:], nil
}

// after returns what comes after the delimiter that no backslash escapes and, in a regular expression, no brackets hold.
func after(text string, delimiter byte, regex bool) (string, error) {
	bracket := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case regex && c == '[':
			bracket = true
		case regex && c == ']':
			bracket = false
		case c == delimiter && !bracket:
			return text[i+1:], nil
		}
	}
	return "", errUnfinished
}

func wordPart(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// arguments reads "(lo, hi)".
func arguments(text string) (s Segment, rest string, err error) {
	open := strings.TrimLeft(text, " \t\r\n\v\f")
	if !strings.HasPrefix(open, "(") {
		return Segment{}, "", fmt.Errorf("%s has no arguments", name)
	}
	list, rest, ok := strings.Cut(open[1:], ")")
	if !ok {
		return Segment{}, "", errUnfinished
	}
	numbers := strings.Split(list, ",")
	if len(numbers) != 2 {
		return Segment{}, "", fmt.Errorf("%s has %d arguments, not 2", name, len(numbers))
	}
	if s.Lo, err = number(numbers[0]); err != nil {
		return Segment{}, "", err
	}
	if s.Hi, err = number(numbers[1]); err != nil {
		return Segment{}, "", err
	}
	if s.Lo > s.Hi {
		return Segment{}, "", fmt.Errorf("%s begins at %v, after its end at %v", name, s.Lo, s.Hi)
	}
	return s, rest, nil
}

// number reads a decimal number from 0 to 1. skipper knows no exponents; they are read here, since they can only mean one thing.
func number(text string) (float64, error) {
	text = strings.TrimSpace(text)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.ContainsAny(text, "xX_") || !(n >= 0 && n <= 1) {
		return 0, fmt.Errorf("argument %q of %s is not a number from 0 to 1", shorten(text), name)
	}
	return n, nil
}

func shorten(text string) string {
	const most = 200
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
