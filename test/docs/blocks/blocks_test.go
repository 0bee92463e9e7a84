package blocks_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/test/docs/blocks"
)

func TestParse(t *testing.T) {
	choices := "yaml, yaml values, yaml other, sh, sh elsewhere, text, json, promql, yaml part of KIND"
	for name, c := range map[string]struct {
		page string
		want []blocks.Block
		err  string
	}{
		"nothing but prose": {page: "# A page\n\nText with `code`.\n"},
		"each kind of block": {
			page: "```yaml\na: 1\n```\n```yaml part of StackSet\nspec:\n```\n```yaml values\n```\n```yaml other\n```\n```sh\nls\n```\n```sh elsewhere\n```\n```text\n```\n```json\n```\n```promql\n```\n",
			want: []blocks.Block{
				{Is: blocks.Manifest, Line: 1, Text: "a: 1\n"}, {Is: blocks.Part, Of: "StackSet", Line: 4, Text: "spec:\n"}, {Is: blocks.Values, Line: 7},
				{Is: blocks.OtherYAML, Line: 9}, {Is: blocks.Commands, Line: 11, Text: "ls\n"}, {Is: blocks.CommandsElsewhere, Line: 14},
				{Is: blocks.Text, Line: 16}, {Is: blocks.JSON, Line: 18}, {Is: blocks.PromQL, Line: 20},
			},
		},
		"a block in an item of a list loses its indent": {
			page: "1. Do:\n\n   ```sh\n   if x; then\n     y\n   fi\n   ```\n",
			want: []blocks.Block{{Is: blocks.Commands, Line: 3, Text: "if x; then\n  y\nfi\n"}},
		},
		"a longer fence holds a shorter one":       {page: "````text\n```yaml\n```\n````\n", want: []blocks.Block{{Is: blocks.Text, Line: 1, Text: "```yaml\n```\n"}}},
		"an indented line inside a block":          {page: "```text\n\n    x\n```\n", want: []blocks.Block{{Is: blocks.Text, Line: 1, Text: "\n    x\n"}}},
		"an indented line that goes on with prose": {page: "Some prose\n    goes on.\n"},
		"a second paragraph of an item":            {page: "- an item\n\n    goes on\n\n  - below\n\n    too\n"},
		"a block without a language":               {page: "\n```\nx\n```\n", err: "page:2: the block does not say what it is: write one of " + "yaml, yaml values, yaml other, sh, sh elsewhere, text, json, promql, yaml part of KIND after the fence"},
		"an unknown language":                      {page: "```go\n```\n", err: `page:1: "go" is none of ` + choices},
		"an unknown word":                          {page: "```yaml sometimes\n```\n", err: `page:1: "yaml sometimes" is none of ` + choices},
		"a part of nothing":                        {page: "```yaml part of\n```\n", err: `page:1: "yaml part of" is none of ` + choices},
		"an indented block":                        {page: "Run:\n\n    make demo\n    make test\n", err: "page:3: a block is indented: fence it"},
		"an indented block after a title":          {page: "# Title\n    make demo\n", err: "page:2: a block is indented: fence it"},
		"an indented block after a list":           {page: "- item\n\nProse.\n\n    make demo\n", err: "page:5: a block is indented: fence it"},
		"an indented block in an item":             {page: "1. Item\n\n        make demo\n", err: "page:3: a block is indented: fence it"},
		"an indented list of YAML":                 {page: "Write:\n\n    - type: Cron\n", err: "page:3: a block is indented: fence it"},
		"a block indented by a tab":                {page: "Run:\n\n\tmake demo\n", err: "page:3: a block is indented: fence it"},
		"a fence of tildes":                        {page: "~~~\n", err: "page:1: fences are written ```"},
		"a block without an end":                   {page: "x\n```sh\nls\n", err: "page:2: the block has no end"},
		"each mistake is told":                     {page: "```\n```\n```go\n```\n", err: "page:1: the block does not say what it is: write one of yaml, yaml values, yaml other, sh, sh elsewhere, text, json, promql, yaml part of KIND after the fence\n" + `page:3: "go" is none of ` + choices},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := blocks.Parse("page", c.page)
			message := ""
			if err != nil {
				message = err.Error()
			}
			if diff := cmp.Diff(c.err, message); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("blocks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProseKeepsTheNumbersOfLines(t *testing.T) {
	if diff := cmp.Diff("a\n\n\n\nb [x](y)\n", blocks.Prose("a\n```sh\n[no](link)\n```\nb [x](y)\n")); diff != "" {
		t.Error(diff)
	}
}

func TestCode(t *testing.T) {
	const prose = "The flag `--x` and ``a `b` c``, [`make`](Makefile)."
	if diff := cmp.Diff([]string{"--x", "a `b` c", "make"}, blocks.Code(prose)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("The flag  and , [](Makefile).", blocks.WithoutCode(prose)); diff != "" {
		t.Error(diff)
	}
}

func TestWhole(t *testing.T) {
	for name, c := range map[string]struct {
		block blocks.Block
		want  string
		err   string
	}{
		"maps are merged, and lists replace lists": {
			block: blocks.Block{Of: "Service", Text: "metadata: {labels: {a: b}}\nspec: {ports: [{port: 8080}]}\n"},
			want:  "apiVersion: v1\nkind: Service\nmetadata:\n  labels:\n    a: b\n  name: part\nspec:\n  ports:\n  - port: 8080\n  selector:\n    app: part\n",
		},
		"what is no map replaces a map": {block: blocks.Block{Of: "Secret", Text: "metadata: x\n"}, want: "apiVersion: v1\nkind: Secret\nmetadata: x\n"},
		"a key twice":                   {block: blocks.Block{Of: "Secret", Text: "data: {}\ndata: {}\n"}, err: "yaml: unmarshal errors:\n  line 2: key \"data\" already set in map"},
		"a whole object":                {block: blocks.Block{Of: "Secret", Text: "kind: Secret\n"}, err: "a part has neither kind nor apiVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.block.Whole()
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := (blocks.Block{Of: "Moon"}).Whole(); err == nil || !strings.Contains(err.Error(), "nothing is known of the kind Moon; known: ") {
		t.Errorf("error %v", err)
	}
}
