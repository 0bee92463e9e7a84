package config

import (
	"fmt"
	"regexp"
	"strings"
)

// A default ends at the first closing brace and stands on the variable's line.
var variable = regexp.MustCompile(`\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(:[^}\n]*)?\}`)

// ExpandEnv replaces ${VAR} by the variable's value, ${VAR:default} likewise or by the default if the variable is unset or
// empty, and $$ by $. Every other $ stays, so that queries and patterns need no escapes. A variable that is unset and has
// no default is an error with its name and line.
func ExpandEnv(text string, lookupEnv func(string) (string, bool)) (string, error) {
	var out strings.Builder
	end := 0
	for _, m := range variable.FindAllStringSubmatchIndex(text, -1) {
		out.WriteString(text[end:m[0]])
		end = m[1]
		if m[2] < 0 {
			out.WriteByte('$')
			continue
		}
		name := text[m[2]:m[3]]
		value, defined := lookupEnv(name)
		switch {
		case value != "":
		case m[4] >= 0:
			value = text[m[4]+1 : m[5]]
		case !defined:
			return "", fmt.Errorf("line %d: environment variable %s is not defined and has no default",
				1+strings.Count(text[:m[0]], "\n"), name)
		}
		out.WriteString(value)
	}
	out.WriteString(text[end:])
	return out.String(), nil
}
