package jsonvalue

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// decoded is a value as encoding/json has it.
func decoded(d *document, n node) any {
	switch n.kind() {
	case null:
		return nil
	case no, yes:
		return n.kind() == yes
	case numeral:
		return json.Number(d.numeral(n))
	case text:
		return d.literal(n.place()).start(MaxDocument)
	case array:
		items := []any{}
		for _, c := range d.children(n) {
			items = append(items, decoded(d, c))
		}
		return items
	}
	members := map[string]any{}
	for _, c := range d.children(n) {
		members[d.literal(c.key()).start(MaxDocument)] = decoded(d, c)
	}
	return members
}

// checkDocument compares what is read of a text with what encoding/json reads.
func checkDocument(t interface{ Fatalf(string, ...any) }, source []byte) {
	d, root, err := read(source)
	if err != nil {
		if strings.Contains(err.Error(), "not JSON") && json.Valid(source) {
			t.Fatalf("%q: %v", source, err)
		}
		return
	}
	decoder := json.NewDecoder(bytes.NewReader(source))
	decoder.UseNumber()
	var want any
	if err := decoder.Decode(&want); err != nil {
		t.Fatalf("%q is read, but %v", source, err)
	}
	if diff := cmp.Diff(want, decoded(d, root)); diff != "" {
		t.Fatalf("%q (-want +got):\n%s", source, diff)
	}
	check := func(n node) {
		if n.kind() != object {
			return
		}
		for i, c := range d.children(n) {
			key := d.literal(c.key()).start(MaxDocument)
			if i > 0 && d.literal(d.children(n)[i-1].key()).start(MaxDocument) >= key {
				t.Fatalf("%q: the members are not sorted", source)
			}
			if found, ok := d.member(n, key); !ok || found != c {
				t.Fatalf("%q: the member %q is not found", source, key)
			}
		}
	}
	check(root)
	for _, n := range d.nodes {
		check(n)
	}
}

func TestDocumentsAreReadAsEncodingJSONReadsThem(t *testing.T) {
	strange := rapid.SampledFrom([]string{"", "a", "b", "a", "ab", "ä", "\xff", `\u0061`, `\u00e4`, `\ud83d\ude00`, "😀", `\ud83d`, `\ud83d\u0061`,
		`\udc00\ud83d`, `\"`, `\\`, `\/`, `\b\f\n\r\t`, "\x7f", `\ufffd`, "\xf0\x9f"})
	quoted := rapid.Custom(func(t *rapid.T) string {
		return `"` + strings.Join(rapid.SliceOfN(strange, 0, 3).Draw(t, "parts"), "") + `"`
	})
	space := rapid.SampledFrom([]string{"", "", " ", "\n", "\r\t"})
	var draw func(t *rapid.T, depth int) string
	draw = func(t *rapid.T, depth int) string {
		list := func(start, end string, item func() string) string {
			var items []string
			for range rapid.IntRange(0, 5).Draw(t, "count") {
				items = append(items, space.Draw(t, "space")+item()+space.Draw(t, "space"))
			}
			return start + strings.Join(items, ",") + end
		}
		switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); {
		case kind < 2 && depth > 0:
			return list("[", "]", func() string { return draw(t, depth-1) })
		case kind < 4 && depth > 0:
			return list("{", "}", func() string { return quoted.Draw(t, "key") + space.Draw(t, "space") + ":" + draw(t, depth-1) })
		case kind == 0:
			return quoted.Draw(t, "string")
		}
		return rapid.SampledFrom([]string{"0", "-1.5e-7", "1E9", "12345678901234567890", "true", "false", "null"}).Draw(t, "scalar")
	}
	rapid.Check(t, func(t *rapid.T) {
		source := draw(t, rapid.IntRange(0, 5).Draw(t, "depth"))
		if rapid.IntRange(0, 3).Draw(t, "break") == 0 {
			at := rapid.IntRange(0, len(source)).Draw(t, "at")
			source = source[:at] + rapid.SampledFrom([]string{"", `"`, `\`, ",", "}", "[", "1", " ", "\x00"}).Draw(t, "more") + source[at:][rapid.IntRange(0, len(source)-at).Draw(t, "less"):]
		}
		checkDocument(t, []byte(source))
	})
}

func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}],"a":"\ud83d\ude00"}`, `[[],{},"",-0.0e+1]`, ` {"\u0061":1,"a":2,"ä":3} `, `{"a"`, "[\"\xff\"]", `tru`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, source []byte) { checkDocument(t, source) })
}

// worst are the documents within the bounds that took most when they were decoded.
func worst() map[string]string {
	var names strings.Builder
	for i := range 70_000 {
		names.WriteString(`,"` + strconv.FormatInt(int64(70_000-i), 36) + `":0`)
	}
	return map[string]string{
		"objects":  "[" + strings.Repeat(`{"a":1},`, 49_998) + `{"a":1}]`,
		"arrays":   "[" + strings.Repeat(`[0],`, 49_998) + `[0]]`,
		"numbers":  "[" + strings.Repeat(`0,`, MaxValues-3) + `0]`,
		"one name": "{" + strings.Repeat(`"a":0,`, MaxValues-3) + `"a":0}`,
		"names":    "{" + names.String()[1:] + "}",
		"brackets": strings.Repeat("[", MaxDocument),
		"escapes":  `["` + strings.Repeat(`\u0041`, MaxDocument/6-1) + `"]`,
		"digits":   strings.Repeat("1", MaxDocument),
		"deep":     "[" + strings.Repeat(strings.Repeat("[", 90)+strings.Repeat("]", 90)+",", 1000) + "0]",
	}
}

// What an evaluation allocates is what it may hold: its index, and next to nothing besides.
func TestTheWorstDocumentsTakeLittleMemory(t *testing.T) {
	const most = MaxValues*8 + 200<<10
	for name, document := range worst() {
		for _, e := range []expression{{path: "$[0]"}, {path: "$..*", aggregator: "max"}, {path: "$[*][*]", aggregator: "sum"}, {path: "$..*..*", aggregator: "sum"},
			{script: "max(length($..*), length($..*..*), sum($[*]), last($[*]))"}, {path: "$[0]", aggregator: "avg"}} {
			c, err := e.compile()
			if err != nil {
				t.Fatal(err)
			}
			source := []byte(document)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = c.Evaluate(context.Background(), source)
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > most {
				t.Errorf("%+v of %s allocates %d bytes, more than %d (%v)", e, name, took, most, err)
			}
		}
	}
}
