package replication

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// protocol is the version of what follows. Nodes that speak another one refuse each other.
const protocol = 1

// A frame is the length of the rest (4 bytes, big-endian), its kind (1 byte), and its content.
const (
	frameHeader = 4
	maxFrame    = 4 << 20
	maxHello    = 4 << 10
)

// The kinds of frames. A stream begins with hello, which welcome answers. Then whoever dialled sends all wants, wantsDone, all fresh samples
// and snapshotDone, and what changes from then on.
const (
	kindHello        = 1 + iota // hello as JSON
	kindWelcome                 // hello as JSON, from the other side
	kindWant                    // ID, query as JSON
	kindUnwant                  // ID
	kindWantsDone               //
	kindSample                  // instant, age, sample
	kindSnapshotDone            //
	kindState                   // membership.State
	kindPing                    // number, instant
	kindPong                    // number, from the other side
	kindFetch                   // number, ID
	kindFetched                 // number, and age and sample if there is one, from the other side
)

// hello is how two nodes greet. Refused is set in a welcome that is none.
type hello struct {
	Protocol int    `json:"protocol"`
	Cluster  string `json:"cluster"`
	Node     string `json:"node"`
	State    string `json:"state"`
	Refused  string `json:"refused,omitempty"`
}

// queryID is sample.Query.ID in bytes.
type queryID [10]byte

func idOf(q *sample.Query) (id queryID) {
	if n, err := hex.Decode(id[:], []byte(q.ID())); n != len(id) || err != nil {
		panic("the ID of a query is not 10 bytes in hexadecimal")
	}
	return id
}

// appendFrame appends a frame whose content fill appends.
func appendFrame(to []byte, kind byte, fill func([]byte) []byte) []byte {
	start := len(to)
	to = fill(append(to, 0, 0, 0, 0, kind))
	binary.BigEndian.PutUint32(to[start:], uint32(len(to)-start-frameHeader))
	return to
}

func raw(content []byte) func([]byte) []byte {
	return func(to []byte) []byte { return append(to, content...) }
}

func number(n uint64) func([]byte) []byte {
	return func(to []byte) []byte { return binary.AppendUvarint(to, n) }
}

// frames reads frames of bounded size.
type frames struct {
	from  *bufio.Reader
	limit int
	// buffer holds the last frame.
	buffer []byte
}

// keptBuffer is up to what size a buffer is used again.
const keptBuffer = 64 << 10

var errFrame = errors.New("what came is not a frame")

// next returns the next frame's kind and content, which is valid until the next call.
func (f *frames) next() (kind byte, content []byte, err error) {
	header, err := f.from.Peek(frameHeader)
	if err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header)
	if size < 1 || size > uint32(f.limit) {
		return 0, nil, fmt.Errorf("%w: %d bytes, and %d are allowed", errFrame, size, f.limit)
	}
	_, _ = f.from.Discard(frameHeader)
	if int(size) > cap(f.buffer) || cap(f.buffer) > keptBuffer && size <= keptBuffer {
		f.buffer = make([]byte, max(size, 1024))
	}
	f.buffer = f.buffer[:size]
	if _, err := io.ReadFull(f.from, f.buffer); err != nil {
		return 0, nil, err
	}
	return f.buffer[0], f.buffer[1:], nil
}

// What a sample says besides its points.
const (
	saysNothing = iota
	saysNoData
	saysError
	saysWarning
)

// maxText bounds the text of an error that is sent.
const maxText = 1024

// A point begins with a byte of these flags, which say what follows. Pods of one workload share most of what is said of them.
const (
	hasPod = 1 << iota
	hasLabels
	sameLabels // as the point before
	hasWindow
	hasAge
	hasContainer

	knownFlags = 1<<iota - 1
)

// appendSample appends all of a sample but its age. Strings are a length and bytes, numbers are varints.
func appendSample(to []byte, id queryID, s *Sample) []byte {
	to = appendString(append(to, id[:]...), s.Collector)
	switch {
	case s.Err == nil && s.Warning == nil:
		to = append(to, saysNothing)
	case s.Err == nil:
		to = appendTold(append(to, saysWarning), s.Warning)
	case errors.Is(s.Err, sample.ErrNoData):
		to = appendString(append(to, saysNoData), cut(s.Err.Error()))
	default:
		to = appendTold(append(to, saysError), s.Err)
	}
	to = binary.AppendUvarint(to, uint64(len(s.Points)))
	var before labels.Set
	for i := range s.Points {
		to = appendPoint(to, &s.Points[i], before)
		before = s.Points[i].Labels
	}
	return to
}

func cut(text string) string { return text[:min(len(text), maxText)] }

// told is an error of another node.
type told struct{ text, outline string }

func (t *told) Error() string { return t.text }

// Outline implements collectors.Outlined.
func (t *told) Outline() string { return t.outline }

// appendTold appends the error's text and its outline, which is empty if it has none.
func appendTold(to []byte, err error) []byte {
	outline := ""
	if outlined := collectors.Outlined(nil); errors.As(err, &outlined) {
		outline = outlined.Outline()
	}
	return appendString(appendString(to, cut(err.Error())), cut(outline))
}

func (in *input) told() error {
	text, outline := in.string(), in.string()
	if outline == "" {
		return errors.New(text)
	}
	return &told{text, outline}
}

func appendPoint(to []byte, p *sample.Point, before labels.Set) []byte {
	var flags byte
	if p.Pod != "" || p.UID != "" {
		flags |= hasPod
	}
	switch {
	case len(p.Labels) == 0:
	case maps.Equal(p.Labels, before):
		flags |= sameLabels
	default:
		flags |= hasLabels
	}
	if p.Window != 0 {
		flags |= hasWindow
	}
	if p.Age != 0 {
		flags |= hasAge
	}
	if p.Container != "" {
		flags |= hasContainer
	}
	to = binary.AppendVarint(append(to, flags), p.Milli)
	if flags&hasPod != 0 {
		to = appendString(appendString(to, p.Pod), string(p.UID))
	}
	if flags&hasLabels != 0 {
		to = binary.AppendUvarint(to, uint64(len(p.Labels)))
		for k, v := range p.Labels {
			to = appendString(appendString(to, k), v)
		}
	}
	if flags&hasWindow != 0 {
		to = binary.AppendVarint(to, int64(p.Window))
	}
	if flags&hasAge != 0 {
		to = binary.AppendVarint(to, int64(p.Age))
	}
	if flags&hasContainer != 0 {
		to = appendString(to, p.Container)
	}
	return to
}

func appendString(to []byte, s string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(s))), s...)
}

// decodeSample reads what appendSample has written after the ID. The strings of the sample are parts of text.
func decodeSample(text string) (Sample, error) {
	in := input{rest: text}
	s := Sample{Collector: in.string()}
	switch says := in.byte(); says {
	case saysNothing:
	case saysNoData:
		s.Err = sample.NoData("%s", in.string())
	case saysError:
		s.Err = in.told()
	case saysWarning:
		s.Warning = in.told()
	default:
		in.broken = true
	}
	n := in.count(2)
	if n > 0 {
		s.Points = make([]sample.Point, n)
	}
	var before labels.Set
	for i := range s.Points {
		in.point(&s.Points[i], before)
		before = s.Points[i].Labels
	}
	if in.broken || in.rest != "" {
		return Sample{}, errFrame
	}
	return s, nil
}

// input reads values from a text. After the first that is not there, broken is set, and nothing is left.
type input struct {
	rest   string
	broken bool
}

func (in *input) point(p *sample.Point, before labels.Set) {
	flags := in.byte()
	if flags&^knownFlags != 0 {
		in.fail()
	}
	p.Milli = in.varint()
	if flags&hasPod != 0 {
		p.Pod, p.UID = in.string(), types.UID(in.string())
	}
	if flags&sameLabels != 0 {
		p.Labels = before
	}
	if flags&hasLabels != 0 {
		n := in.count(2)
		p.Labels = make(labels.Set, n)
		for range n {
			key := in.string()
			p.Labels[key] = in.string()
		}
	}
	if flags&hasWindow != 0 {
		p.Window = time.Duration(in.varint())
	}
	if flags&hasAge != 0 {
		p.Age = time.Duration(in.varint())
	}
	if flags&hasContainer != 0 {
		p.Container = in.string()
	}
}

func (in *input) fail() { in.rest, in.broken = "", true }

func (in *input) byte() byte {
	if in.rest == "" {
		in.fail()
		return 0
	}
	b := in.rest[0]
	in.rest = in.rest[1:]
	return b
}

func (in *input) uvarint() uint64 {
	var value uint64
	for shift := 0; shift < 64; shift += 7 {
		b := in.byte()
		value |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return value
		}
	}
	in.fail()
	return 0
}

func (in *input) varint() int64 {
	value := in.uvarint()
	return int64(value>>1) ^ -int64(value&1)
}

// count reads a number of things of at least size bytes each, which the rest has room for.
func (in *input) count(size int) int {
	n := in.uvarint()
	if n > uint64(len(in.rest)/size) {
		in.fail()
		return 0
	}
	return int(n)
}

func (in *input) string() string {
	n := in.count(1)
	s := in.rest[:n]
	in.rest = in.rest[n:]
	return s
}

func (in *input) id() (id queryID) {
	if len(in.rest) < len(id) {
		in.fail()
		return id
	}
	in.rest = in.rest[copy(id[:], in.rest):]
	return id
}

// milliseconds reads a span of time up to 292 years.
func (in *input) milliseconds() time.Duration {
	n := in.uvarint()
	if n > math.MaxInt64/uint64(time.Millisecond) {
		in.fail()
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// appendMilliseconds writes a span of time; one below zero is zero.
func appendMilliseconds(to []byte, d time.Duration) []byte {
	return binary.AppendUvarint(to, uint64(max(d, 0).Milliseconds()))
}

// encodeWant is the content of a want.
func encodeWant(id queryID, q *sample.Query) []byte {
	text, err := json.Marshal(q)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return append(id[:], text...)
}

// decodeWant reads a want. A query that another version has written and this one cannot express is an error.
func decodeWant(content []byte) (queryID, sample.Query, error) {
	var id queryID
	var q sample.Query
	if len(content) < len(id) {
		return id, q, errFrame
	}
	copy(id[:], content)
	if err := json.Unmarshal(content[len(id):], &q); err != nil {
		return id, q, err
	}
	if idOf(&q) != id {
		return id, q, errors.New("the query means something else to this version")
	}
	return id, q, nil
}
