// Package blocks reads the code blocks of a Markdown page of this project, and holds them to its rules: each is fenced and says what it
// is. It reads text and nothing else, so that tests without a cluster and tests with one see the same blocks.
package blocks

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What a block is, by its language and, for YAML and commands, the words after it.
const (
	// Manifest is a whole object, or several. It can be applied.
	Manifest = "yaml"
	// Part is a fragment of an object of the kind in Block.Of, from the object's root.
	Part = "yaml part of"
	// Values are values of the Helm chart.
	Values = "yaml values"
	// OtherYAML is for another program.
	OtherYAML = "yaml other"
	// Commands can be run by bash in the repository's root.
	Commands = "sh"
	// CommandsElsewhere cannot be run where tests run.
	CommandsElsewhere = "sh elsewhere"
	Text              = "text"
	JSON              = "json"
	PromQL            = "promql"
)

var known = []string{Manifest, Values, OtherYAML, Commands, CommandsElsewhere, Text, JSON, PromQL}

// Block is one code block.
type Block struct {
	// Is is one of the constants of this package.
	Is string
	// Of is the kind that a Part is of.
	Of string
	// Line is that of the fence, counted from 1.
	Line int
	// Text is what stands between the fences, with the end of its last line, without the indent of the fence.
	Text string
}

var (
	fence  = regexp.MustCompile("^( *)(```+)([^`]*)$")
	partOf = regexp.MustCompile(`^yaml part of ([A-Z][A-Za-z]*)$`)
	item   = regexp.MustCompile(`^\s*([-*+]|[0-9]+[.)])\s`)
)

// Parse returns the blocks of a page in their order. Its error has a line for each that breaks the rules, which begins with page:line.
func Parse(page, markdown string) ([]Block, error) {
	var (
		out    []Block
		errs   []error
		lines  = strings.SplitAfter(markdown, "\n")
		refuse = func(line int, format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s:%d: %s", page, line+1, fmt.Sprintf(format, args...)))
		}
		blank   = true  // whether the line before is empty
		listed  = false // whether this may belong to an item of a list
		isBlank = func(line string) bool { return strings.TrimSpace(line) == "" }
	)
	for i := 0; i < len(lines); i++ {
		line := strings.TrimRight(lines[i], "\r\n")
		opening := fence.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "~~~"):
			refuse(i, "fences are written ```")
		case opening != nil:
			end := i + 1
			for end < len(lines) && !closes(lines[end], opening[2]) {
				end++
			}
			if end == len(lines) {
				refuse(i, "the block has no end")
				return out, errors.Join(errs...)
			}
			block := Block{Line: i + 1}
			for _, inside := range lines[i+1 : end] {
				block.Text += dedent(inside, len(opening[1]))
			}
			if err := block.is(strings.TrimSpace(opening[3])); err != nil {
				refuse(i, "%v", err)
			} else {
				out = append(out, block)
			}
			i = end
			blank = false
			continue
		case isBlank(line):
		case blank && (strings.HasPrefix(line, "\t") || strings.HasPrefix(line, deep(listed))):
			refuse(i, "a block is indented: fence it")
		case item.MatchString(line):
			listed = true
		case !strings.HasPrefix(line, " "):
			listed = listed && !blank
		}
		blank = isBlank(line) || strings.HasPrefix(line, "#")
	}
	return out, errors.Join(errs...)
}

// deep is the indent from which a line after an empty one is code. Below an item of a list it is a paragraph of the item up to then.
func deep(listed bool) string {
	if listed {
		return strings.Repeat(" ", 7)
	}
	return strings.Repeat(" ", 4)
}

func closes(line, opening string) bool {
	line = strings.TrimSpace(line)
	return len(line) >= len(opening) && strings.Trim(line, "`") == ""
}

// dedent takes away as many spaces as there are, at most n.
func dedent(line string, n int) string {
	for ; n > 0 && strings.HasPrefix(line, " "); n-- {
		line = line[1:]
	}
	return line
}

// is sets what the block is, by the words after its fence.
func (b *Block) is(words string) error {
	switch part := partOf.FindStringSubmatch(words); {
	case words == "":
		return errors.New("the block does not say what it is: write one of " + strings.Join(known, ", ") + ", yaml part of KIND after the fence")
	case part != nil:
		b.Is, b.Of = Part, part[1]
	case slices.Contains(known, words):
		b.Is = words
	default:
		return fmt.Errorf("%q is none of %s, yaml part of KIND", words, strings.Join(known, ", "))
	}
	return nil
}

var code = regexp.MustCompile("(``+)(.+?)(``+)|`([^`\n]+)`")

// Prose is the page without its blocks, whose lines are left empty so that all others keep their numbers.
func Prose(markdown string) string {
	var out strings.Builder
	opening := ""
	for line := range strings.Lines(markdown) {
		f := fence.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		switch {
		case opening == "" && f != nil:
			opening = f[2]
		case opening == "":
			out.WriteString(line)
			continue
		case closes(line, opening):
			opening = ""
		}
		out.WriteString("\n")
	}
	return out.String()
}

// Code are the spans of code in prose, such as `this`.
func Code(prose string) (spans []string) {
	for _, m := range code.FindAllStringSubmatch(prose, -1) {
		spans = append(spans, strings.TrimSpace(m[2]+m[4]))
	}
	return spans
}

// WithoutCode is prose with its spans of code emptied.
func WithoutCode(prose string) string { return code.ReplaceAllString(prose, "") }
