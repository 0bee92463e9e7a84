package replication

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

func anyPoint(t *rapid.T) sample.Point {
	p := sample.Point{Milli: rapid.Int64().Draw(t, "milli")}
	if rapid.Bool().Draw(t, "pod") {
		p.Pod, p.UID = rapid.String().Draw(t, "name"), types.UID(rapid.String().Draw(t, "uid"))
		p.Labels = rapid.SampledFrom([]labels.Set{nil, {"a": "b"}, {"a": "b", "c": ""}}).Draw(t, "labels")
	}
	p.Window = time.Duration(rapid.Int64().Draw(t, "window"))
	p.Age = time.Duration(rapid.Int64().Draw(t, "age"))
	p.Container = rapid.StringN(0, 3, -1).Draw(t, "container")
	return p
}

// podsError names pods.
type podsError string

func (p podsError) Error() string { return string(p) }
func (podsError) Outline() string { return "some pods" }

func outlineOf(err error) string {
	if outlined := collectors.Outlined(nil); errors.As(err, &outlined) {
		return outlined.Outline()
	}
	return ""
}

func TestASampleIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Sample{Collector: rapid.String().Draw(t, "collector")}
		s.Points = rapid.SliceOfN(rapid.Custom(anyPoint), 0, 5).Draw(t, "points")
		if len(s.Points) == 0 {
			s.Points = nil
		}
		s.Err = rapid.SampledFrom([]error{nil, errors.New("failed"), sample.NoData("nothing: %%d"), podsError("a, b: refused")}).Draw(t, "error")
		if s.Err == nil {
			s.Warning = rapid.SampledFrom([]error{nil, errors.New("several"), podsError("of pod c")}).Draw(t, "warning")
		}
		text := string(appendSample(nil, queryID{1, 2, 3}, &s))
		in := input{rest: text}
		if id := in.id(); id != (queryID{1, 2, 3}) {
			t.Fatalf("the ID is %v", id)
		}
		got, err := decodeSample(in.rest)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got.Err) != fmt.Sprint(s.Err) || errors.Is(got.Err, sample.ErrNoData) != errors.Is(s.Err, sample.ErrNoData) {
			t.Errorf("error %v, want %v", got.Err, s.Err)
		}
		if fmt.Sprint(got.Warning) != fmt.Sprint(s.Warning) {
			t.Errorf("warning %v, want %v", got.Warning, s.Warning)
		}
		if outlineOf(got.Err) != outlineOf(s.Err) || outlineOf(got.Warning) != outlineOf(s.Warning) {
			t.Errorf("outlines %q and %q, want %q and %q", outlineOf(got.Err), outlineOf(got.Warning), outlineOf(s.Err), outlineOf(s.Warning))
		}
		if diff := cmp.Diff(s.Points, got.Points); diff != "" || got.Collector != s.Collector {
			t.Error(diff)
		}
		for cut := range len(in.rest) {
			if _, err := decodeSample(in.rest[:cut]); err == nil && cut > 0 {
				t.Errorf("the first %d bytes are a sample as well", cut)
			}
		}
	})
}

func FuzzDecodeSample(f *testing.F) {
	full := Sample{Collector: "a", Result: sample.Result{Err: errors.New("e"), Points: []sample.Point{
		{Pod: "p", UID: "u", Labels: labels.Set{"a": "b"}, Milli: 5, Window: 1, Age: 2, Container: "c"}, {Pod: "q", Labels: labels.Set{"a": "b"}},
	}}}
	f.Add(string(appendSample(nil, queryID{}, &full)[10:]))
	f.Add("\x00\x00\x00")
	f.Add("\x00\x01\x01x\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := decodeSample(text)
		if err != nil {
			return
		}
		again, err := decodeSample(string(appendSample(nil, queryID{}, &s)[10:]))
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Points { // an empty set of labels is none
			if len(s.Points[i].Labels) == 0 {
				s.Points[i].Labels = nil
			}
		}
		if diff := cmp.Diff(s.Points, again.Points); diff != "" {
			t.Error(diff)
		}
	})
}
