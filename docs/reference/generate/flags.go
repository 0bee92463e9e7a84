package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kubetide/kubetide/internal/config"
)

// group is a section of the help.
type group struct {
	title string
	flags []flag
}

// flag is one setting. Its key is the place in the file, empty for those that say where the file is.
type flag struct {
	name, value, preset, env, key, about string
}

func readFlags() ([]group, error) {
	// Loading asks for the variable of each flag, and returns the settings, both in the order of the help.
	var variables []string
	sets := config.Flags()
	_, settings, err := config.Load(sets, func(name string) (string, bool) {
		variables = append(variables, name)
		return "", false
	})
	if err != nil {
		return nil, err
	}
	var out []group
	for _, title := range sets.Order {
		g := group{title: title}
		sets.FlagSets[title].VisitAll(func(f *pflag.Flag) {
			one := flag{name: f.Name, preset: f.DefValue, env: variables[0]}
			variables = variables[1:]
			one.value, one.about = pflag.UnquoteUsage(f)
			if title != "config" {
				one.key, settings = settings[0].Key, settings[1:]
			}
			g.flags = append(g.flags, one)
		})
		out = append(out, g)
	}
	if len(variables)+len(settings) > 0 {
		return nil, fmt.Errorf("variables %v or %d settings have no flag", variables, len(settings))
	}
	return out, nil
}

func flagsPage(groups []group) string {
	var b strings.Builder
	fmt.Fprintf(&b, generated, "internal/config")
	b.WriteString(`# Flags of kubetide server

As ` + "`kubetide server --help`" + ` groups them. A flag goes before its environment variable, this before the file of ` + "`--config.path`" + `, this
before the default; ` + "`kubetide config check`" + ` shows what holds, and from where. The key is the place in the file: ` + "`log.level`" + ` is
` + "`level`" + ` below ` + "`log`" + `.
`)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n| flag | default | environment | key | |\n|---|---|---|---|---|\n", strings.ToUpper(g.title[:1])+g.title[1:])
		for _, f := range g.flags {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", code(strings.TrimSpace("--"+f.name+" "+f.value)), code(f.preset), code(f.env), code(f.key), prose(f.about))
		}
	}
	return b.String()
}
