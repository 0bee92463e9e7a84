package jsonvalue

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/kubetide/kubetide/internal/spare"
)

// document is JSON with an index of its values: eight bytes for each, where encoding/json makes up to 400. It copies nothing of
// the text.
type document struct {
	text  []byte
	nodes []node // the children of each array and object stand together; those of an object are sorted by their keys
	// buffer is where a larger index is, and pool whose it is.
	buffer *[]node
	pool   *spare.Buffers[node]
}

// node is one value. From its lowest bit: its kind; where the key stands, if it is an object's member; and then, of an array or an
// object, which node is the first child, and how many there are; of all others, where they stand.
type node uint64

type kind uint8

const (
	null kind = iota
	no
	yes
	numeral
	text
	array
	object
	size // the length of an array, which is no value of the document's own
)

const (
	kindBits   = 3
	offsetBits = 20
	indexBits  = 17

	keyAt   = kindBits
	placeAt = keyAt + offsetBits
	countAt = placeAt + indexBits
)

// The bounds fit into a node.
var (
	_ = [1]struct{}{}[(MaxDocument-1)>>offsetBits]
	_ = [1]struct{}{}[MaxValues>>indexBits]
)

func (n node) kind() kind  { return kind(n & (1<<kindBits - 1)) }
func (n node) key() int    { return int(n >> keyAt & (1<<offsetBits - 1)) }
func (n node) place() int  { return int(n >> placeAt & (1<<offsetBits - 1)) }
func (n node) first() int  { return int(n >> placeAt & (1<<indexBits - 1)) }
func (n node) count() int  { return int(n >> countAt) }
func (n node) holds() bool { return n.kind() == array || n.kind() == object }

func sizeOf(n node) node { return node(size) | node(n.count())<<countAt }

func (d *document) children(n node) []node {
	if !n.holds() {
		return nil
	}
	return d.nodes[n.first() : n.first()+n.count()]
}

// member returns the member of an object.
func (d *document) member(n node, name string) (node, bool) {
	children := d.children(n)
	i, found := slices.BinarySearchFunc(children, name, func(member node, name string) int {
		key := d.literal(member.key())
		if c, ok := compareName(key.rest, name); ok {
			return c
		}
		c, _ := compareStrings(key, plain(name))
		return c
	})
	if !found {
		return 0, false
	}
	return children[i], true
}

// numeral returns the number as it is written.
func (d *document) numeral(n node) []byte {
	written := d.text[n.place():]
	end := 0
	for end < len(written) && strings.IndexByte("+-.eE0123456789", written[end]) >= 0 {
		end++
	}
	return written[:end]
}

func (d *document) literal(at int) literal { return literal{rest: d.text[at+1:]} }

// read makes a document of a text, and returns its root.
func read(source []byte) (d *document, root node, err error) {
	if len(source) > MaxDocument {
		return nil, 0, fmt.Errorf("the document has %d bytes, the limit is %d", len(source), MaxDocument)
	}
	values, err := measure(source)
	if err != nil {
		return nil, 0, err
	}
	if !json.Valid(source) {
		return nil, 0, fmt.Errorf("the document is not JSON: %w", flaw(source))
	}
	r := reader{document: document{text: source}, open: values}
	switch {
	case values > medium:
		r.pool = largeIndexes
	case values > small:
		r.pool = mediumIndexes
	}
	if r.pool == nil {
		r.nodes = make([]node, values)
	} else {
		r.buffer = r.pool.Get()
		r.nodes = (*r.buffer)[:values]
	}
	root = r.value()
	return &r.document, root, nil
}

// Large indexes are used again: as garbage they would count as memory until they are collected.
const (
	small  = 4 << 10  // values
	medium = 33 << 10 // more than 64 KiB hold
)

var (
	mediumIndexes = spare.New[node](medium, 2)
	largeIndexes  = spare.New[node](MaxValues, 1)
)

// free ends the use of the document.
func (d *document) free() {
	if d.pool != nil {
		d.pool.Put(d.buffer)
	}
	*d = document{}
}

// flaw says what is wrong with a text.
func flaw(source []byte) error {
	err := json.Unmarshal(source, &struct{}{}) // it looks at all of the text first
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return errors.New("it cannot be read")
	case strings.Contains(err.Error(), "after top-level value"):
		return errors.New("something follows the first value")
	case !errors.As(err, &syntax):
		return err
	}
	// The end of a text looks like a space to encoding/json.
	spaced := strings.Contains(err.Error(), "character ' '") && int(syntax.Offset) == len(source) && source[len(source)-1] != ' '
	if spaced || strings.Contains(err.Error(), "unexpected end") {
		return errors.New("unexpected end of file")
	}
	return err
}

// measure refuses what would take too much memory or time, and returns how many values there are at most. It need not be exact
// on what is not JSON.
func measure(source []byte) (values int, err error) {
	depth, values, quoted := 0, 1, false
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case quoted:
			if c == '\\' {
				i++
			}
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '[' || c == '{':
			values++
			if depth++; depth > MaxDepth {
				return 0, fmt.Errorf("the document is nested deeper than %d levels", MaxDepth)
			}
		case c == ']' || c == '}':
			depth--
		case c == ',':
			values++
		}
	}
	if values > MaxValues {
		return 0, fmt.Errorf("the document has more than %d values", MaxValues)
	}
	return values, nil
}

// reader makes the index of a text that is known to be JSON. The children of what has been read fill the nodes from the left,
// those of what is being read from the right: a node is always in one of the two places, so that both fit.
type reader struct {
	document
	at   int // in the text
	done int // nodes[:done] are final
	open int // nodes[open:] wait for their array or object to end, the latest first
}

func (r *reader) space() {
	for r.at < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[r.at]) >= 0 {
		r.at++
	}
}

// value reads one value. Its recursion ends at MaxDepth.
func (r *reader) value() node {
	r.space()
	at := r.at
	k := numeral
	switch r.text[at] {
	case '[':
		return r.container(array, ']')
	case '{':
		return r.container(object, '}')
	case '"':
		k = text
		r.quoted()
	case 'n':
		k, r.at = null, at+len("null")
	case 't':
		k, r.at = yes, at+len("true")
	case 'f':
		k, r.at = no, at+len("false")
	default:
		for r.at < len(r.text) && strings.IndexByte(" \t\r\n,]}", r.text[r.at]) < 0 {
			r.at++
		}
	}
	return node(k) | node(at)<<placeAt
}

// quoted passes a string.
func (r *reader) quoted() {
	for r.at++; r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			r.at++
		}
	}
	r.at++
}

func (r *reader) container(k kind, end byte) node {
	outer := r.open
	for r.at++; ; {
		r.space()
		if r.text[r.at] == end {
			r.at++
			break
		}
		key := r.at
		if k == object {
			r.quoted()
		} else {
			key = 0
		}
		n := r.value() | node(key)<<keyAt
		r.open--
		r.nodes[r.open] = n
	}
	children := r.nodes[r.open:outer]
	slices.Reverse(children)
	if k == object {
		children = r.sort(children)
	}
	first := r.done
	r.done += copy(r.nodes[r.done:], children)
	r.open = outer
	return node(k) | node(first)<<placeAt | node(len(children))<<countAt
}

// sort sorts members by their keys. Of several with one key, the last counts.
func (r *reader) sort(members []node) []node {
	byKey := func(a, b node) int {
		x, y := r.literal(a.key()), r.literal(b.key())
		if c, ok := comparePlain(x.rest, y.rest); ok {
			return c
		}
		c, _ := compareStrings(x, y)
		return c
	}
	if !slices.IsSortedFunc(members, byKey) {
		slices.SortFunc(members, func(a, b node) int { return cmp.Or(byKey(a, b), a.key()-b.key()) })
	}
	kept := members[:0]
	for i, m := range members {
		if i+1 == len(members) || byKey(m, members[i+1]) != 0 {
			kept = append(kept, m)
		}
	}
	return kept
}

// literal reads what a string means, piece by piece, so that none has to be copied.
type literal struct {
	rest  []byte // what follows the opening quote
	plain bool   // rest is the string itself
	rune  [utf8.UTFMax]byte
}

func plain(s string) literal { return literal{rest: []byte(s), plain: true} }

// next returns the next bytes, which are valid until it is called again; none at the end.
func (l *literal) next() []byte {
	n := 0
	for ; n < len(l.rest); n++ {
		if l.plain {
			n = len(l.rest)
			break
		}
		c := l.rest[n]
		if c == '"' || c == '\\' {
			break
		}
		if c >= utf8.RuneSelf {
			_, length := utf8.DecodeRune(l.rest[n:])
			if length == 1 {
				break
			}
			n += length - 1
		}
	}
	if n > 0 || len(l.rest) == 0 {
		piece := l.rest[:n]
		l.rest = l.rest[n:]
		return piece
	}
	if l.rest[0] == '"' {
		return nil
	}
	char, length := utf8.RuneError, 1 // no UTF-8, as encoding/json has it
	if l.rest[0] == '\\' {
		char, length = escape(l.rest)
	}
	l.rest = l.rest[length:]
	return utf8.AppendRune(l.rune[:0], char)
}

// escape reads the escape at the start of a JSON text.
func escape(source []byte) (char rune, length int) {
	if i := strings.IndexByte("bfnrt", source[1]); i >= 0 {
		return rune("\b\f\n\r\t"[i]), 2
	}
	if source[1] != 'u' {
		return rune(source[1]), 2
	}
	char = unicodeEscape(source)
	if !utf16.IsSurrogate(char) {
		return char, 6
	}
	if pair := utf16.DecodeRune(char, unicodeEscape(source[6:])); pair != utf8.RuneError {
		return pair, 12
	}
	return utf8.RuneError, 6
}

// unicodeEscape returns the character of \u1234, or -1 if that does not stand there.
func unicodeEscape(source []byte) (char rune) {
	if len(source) < 6 || source[0] != '\\' || source[1] != 'u' {
		return -1
	}
	for _, c := range source[2:6] {
		digit := rune(c - '0')
		if c > '9' {
			digit = rune(c|0x20-'a') + 10
		}
		char = char<<4 | digit
	}
	return char
}

// length returns how many bytes of UTF-8 the string has.
func (l literal) length() (n int) {
	for piece := l.next(); len(piece) > 0; piece = l.next() {
		n += len(piece)
	}
	return n
}

// start returns the string, or what its first bytes are up to the limit.
func (l literal) start(limit int) string {
	var out []byte
	for piece := l.next(); len(piece) > 0 && len(out) < limit; piece = l.next() {
		out = append(out, piece[:min(len(piece), limit-len(out))]...)
	}
	return string(out)
}

// compareStrings orders strings by their bytes, and returns how many it has looked at.
func compareStrings(a, b literal) (order, work int) {
	x, y := a.next(), b.next()
	for {
		n := min(len(x), len(y))
		work += n
		if order = bytes.Compare(x[:n], y[:n]); order != 0 {
			return order, work
		}
		if n == 0 { // one of them has ended
			return len(x) - len(y), work
		}
		if x = x[n:]; len(x) == 0 {
			x = a.next()
		}
		if y = y[n:]; len(y) == 0 {
			y = b.next()
		}
	}
}

// comparePlain is compareStrings for what nearly all keys are, ASCII without escapes; ok says whether these are. Both end at a quote.
func comparePlain(a, b []byte) (order int, ok bool) {
	for i := 0; ; i++ {
		x, y := a[i], b[i]
		switch {
		case x == '\\' || y == '\\' || x >= utf8.RuneSelf || y >= utf8.RuneSelf:
			return 0, false
		case x == '"' && y == '"':
			return 0, true
		case x == '"':
			return -1, true
		case y == '"':
			return 1, true
		case x != y:
			return int(x) - int(y), true
		}
	}
}

// compareName is comparePlain with a name that has no quote at its end.
func compareName(a []byte, name string) (order int, ok bool) {
	for i := range len(name) {
		x, y := a[i], name[i]
		switch {
		case x == '"':
			return -1, true
		case x == '\\' || x >= utf8.RuneSelf || y >= utf8.RuneSelf:
			return 0, false
		case x != y:
			return int(x) - int(y), true
		}
	}
	if a[len(name)] == '"' {
		return 0, true
	}
	return 1, true
}

// runes reads a literal as regexp wants it.
type runes struct {
	literal
	piece []byte
}

// ReadRune implements io.RuneReader.
func (r *runes) ReadRune() (char rune, length int, err error) {
	if len(r.piece) == 0 {
		if r.piece = r.next(); len(r.piece) == 0 {
			return 0, 0, io.EOF
		}
	}
	char, length = utf8.DecodeRune(r.piece)
	r.piece = r.piece[length:]
	return char, length, nil
}
