package jsonvalue

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// normalize rewrites the forms that upstream accepts and gval's scanner does not: 'k' → "k", .[ → [, and names with
// dashes or leading digits, .my-key → ["my-key"]. String literals stay as they are.
//
// In an expression a dash is a minus, as upstream has it, unless a letter follows at once and the whole cannot be a
// subtraction of a constant or a function: $.a-1 and $.a-pi subtract, $.my-key is a name. At the top of a plain path every
// dash belongs to the name.
func normalize(text string, pathOnly bool) (string, error) {
	var out strings.Builder
	var brackets []bool // for each open bracket: does it belong to a path?
	inPath := false
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\'' || c == '"':
			literal, n, err := unquote(text[i:])
			if err != nil {
				return "", err
			}
			out.WriteString(strconv.Quote(literal))
			i += n
			inPath = false
			continue
		case c == '$' || c == '@':
			inPath = true
		case c == '[':
			brackets = append(brackets, inPath)
			inPath = false
		case c == ']':
			inPath = len(brackets) > 0 && brackets[len(brackets)-1]
			brackets = brackets[:max(0, len(brackets)-1)]
		case c == '.' && inPath:
			dots := "."
			if strings.HasPrefix(text[i:], "..") {
				dots = ".."
			}
			i += len(dots)
			name := pathName(text[i:], pathOnly && len(brackets) == 0)
			next := text[i+len(name):]
			switch {
			case strings.HasPrefix(next, "*") && name == "":
				out.WriteString(dots + "*")
				i++
			case strings.HasPrefix(next, "[") && name == "" && dots == ".":
			case name == "" || isIdentifier(name):
				out.WriteString(dots + name)
			default:
				if dots == ".." {
					out.WriteString(dots)
				}
				out.WriteString("[" + strconv.Quote(name) + "]")
			}
			i += len(name)
			continue
		default:
			inPath = false
		}
		out.WriteByte(text[i])
		i++
	}
	return out.String(), nil
}

// pathName returns the name at the start of text.
func pathName(text string, dashes bool) string {
	end := len(text)
	for i, r := range text {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' {
			end = i
			break
		}
	}
	name := text[:end]
	if dashes {
		return name
	}
	for i := range len(name) {
		if name[i] != '-' {
			continue
		}
		r, _ := utf8.DecodeRuneInString(name[i+1:])
		word, _, _ := strings.Cut(name[i+1:], "-")
		_, constant := constants[word]
		call := len(word) == len(name)-i-1 && strings.HasPrefix(strings.TrimSpace(text[end:]), "(")
		if !unicode.IsLetter(r) && r != '_' || constant || call {
			return name[:i]
		}
	}
	return name
}

func isIdentifier(name string) bool {
	r, _ := utf8.DecodeRuneInString(name)
	return !unicode.IsDigit(r) && !strings.Contains(name, "-")
}

// unquote reads the literal at the start of text, in single or double quotes, and returns how many bytes it takes.
func unquote(text string) (literal string, length int, err error) {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case quote:
			inner := text[1:i]
			if quote == '\'' {
				inner = strings.NewReplacer(`\\`, `\\`, `\'`, `'`, `"`, `\"`).Replace(inner)
			}
			literal, err = strconv.Unquote(`"` + inner + `"`)
			if err != nil {
				err = errors.New("the string " + text[:i+1] + " has an unknown escape")
			}
			return literal, i + 1, err
		}
	}
	return "", 0, errors.New("a string has no end")
}
