package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
	cliflag "k8s.io/component-base/cli/flag"
)

// maxFileSize bounds the configuration file, in bytes.
const maxFileSize = 1 << 20

type section struct {
	// title heads the section in the help; name is its key in the file (empty: the top level).
	title, name string
	prefix      string
	settings    interface {
		RegisterFlags(fs *pflag.FlagSet, prefix string)
		Validate() error
	}
}

func (c *Config) sections() []section {
	return []section{
		{"general", "", "", &c.General},
		{"log", "log", "log.", &c.Log},
		{"serving", "serving", "", &c.Serving},
		{"admin", "admin", "admin.", &c.Admin},
		{"webhook", "webhook", "webhook.", &c.Webhook},
		{"adapter", "adapter", "", &c.Adapter},
		{"prometheus", "prometheus", "prometheus-", &c.Prometheus},
		{"ingress", "ingress", "", &c.Ingress},
		{"AWS", "aws", "aws-", &c.AWS},
		{"other sources", "sources", "", &c.Sources},
		{"outbound", "outbound", "outbound-", &c.Outbound},
		{"engine", "engine", "", &c.Engine},
		{"steps", "step", "step-", &c.Step},
		{"stacksets", "stackset", "", &c.StackSet},
		{"cluster", "cluster", "cluster.", &c.Cluster},
	}
}

// File says where the configuration file is and how it is read.
type File struct {
	Path      string
	ExpandEnv bool
}

// RegisterFlags binds the settings to flags below the prefix.
func (f *File) RegisterFlags(fs *pflag.FlagSet, prefix string) {
	fs.StringVar(&f.Path, prefix+"path", f.Path, "The configuration `file` (YAML). Every flag can stand there; see `kubetide config check`.")
	fs.BoolVar(&f.ExpandEnv, prefix+"expand-env", f.ExpandEnv, "Replace ${VAR} and ${VAR:default} in the file by the environment's values, and $$ by $.")
}

// aliases are names that other projects use for the same setting.
var aliases = map[string]string{
	"lister-kubeconfig": "kubeconfig",            // kube-metrics-adapter
	"reconcile-workers": "reconcile-concurrency", // stackset-controller
	"algorithm-job-default-image-horizontal-predictive": "algorithm-job-default-image", // Kapacity
}

// secret are the flags whose values are not shown.
var secret = map[string]bool{"influxdb-token": true, "token": true}

func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if own, ok := aliases[name]; ok {
		name = own
	}
	return pflag.NormalizedName(name)
}

// Flags returns new flags for a command line, with the defaults, in the sections of the help.
func Flags() cliflag.NamedFlagSets {
	all := cliflag.NamedFlagSets{NormalizeNameFunc: normalize}
	new(File).RegisterFlags(all.FlagSet("config"), "config.")
	for _, s := range Default().sections() {
		s.settings.RegisterFlags(all.FlagSet(s.title), s.prefix)
	}
	return all
}

// Setting is one effective setting.
type Setting struct {
	// Key is its place in the file: section.name, or name.
	Key   string
	Value string
	// Source is "default", "file", "env" or "flag".
	Source string

	flag *pflag.Flag
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "KUBETIDE_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(flag))
}

// Load returns the settings that hold: a flag of the command line wins over the environment, this over the file, this over
// the default. Errors are one line, and name the setting and where its value came from.
func Load(commandLine cliflag.NamedFlagSets, lookupEnv func(string) (string, bool)) (*Config, []Setting, error) {
	config := Default()
	var file File
	var settings []*Setting
	byKey := map[string]*Setting{}
	groups := map[string]bool{}
	read := func(title, name, prefix string, register func(*pflag.FlagSet, string)) {
		fs := pflag.NewFlagSet(title, pflag.ContinueOnError)
		register(fs, prefix)
		fs.VisitAll(func(f *pflag.Flag) {
			key := strings.ReplaceAll(strings.TrimPrefix(f.Name, prefix), "-", "_")
			if name != "" {
				key = name + "." + key
			}
			s := &Setting{Key: key, Source: "default", flag: f}
			settings = append(settings, s)
			byKey[key] = s
			for i, c := range key {
				if c == '.' {
					groups[key[:i]] = true
				}
			}
		})
	}
	over := func(s *Setting) error {
		if text, ok := lookupEnv(envName(s.flag.Name)); ok {
			if err := s.flag.Value.Set(text); err != nil {
				return fmt.Errorf("environment variable %s: %w", envName(s.flag.Name), err)
			}
			s.Source = "env"
		}
		for _, fs := range commandLine.FlagSets {
			f := fs.Lookup(s.flag.Name)
			if f == nil || !f.Changed {
				continue
			}
			s.Source = "flag"
			if list, ok := f.Value.(pflag.SliceValue); ok {
				return s.flag.Value.(pflag.SliceValue).Replace(list.GetSlice())
			}
			return s.flag.Value.Set(f.Value.String())
		}
		return nil
	}

	read("config", "config", "config.", file.RegisterFlags)
	for _, s := range settings {
		if err := over(s); err != nil {
			return nil, nil, err
		}
	}
	settings, byKey, groups = nil, map[string]*Setting{}, map[string]bool{}
	for _, s := range config.sections() {
		read(s.title, s.name, s.prefix, s.settings.RegisterFlags)
	}
	if file.Path != "" {
		if err := readFile(file, lookupEnv, groups, byKey); err != nil {
			return nil, nil, fmt.Errorf("configuration file %s: %w", file.Path, err)
		}
	}
	for _, s := range settings {
		if err := over(s); err != nil {
			return nil, nil, err
		}
	}
	if err := config.Validate(); err != nil {
		return nil, nil, err
	}
	effective := make([]Setting, 0, len(settings))
	for _, s := range settings {
		if s.Value = s.flag.Value.String(); secret[s.flag.Name] && s.Value != "" {
			s.Value = "(hidden)"
		}
		effective = append(effective, *s)
	}
	return config, effective, nil
}

func readFile(file File, lookupEnv func(string) (string, bool), groups map[string]bool, settings map[string]*Setting) error {
	f, err := os.Open(file.Path)
	if err != nil {
		var atPath *os.PathError
		if errors.As(err, &atPath) {
			return atPath.Err // the caller names the path
		}
		return err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return err
	}
	if len(content) > maxFileSize {
		return fmt.Errorf("is larger than %d bytes", maxFileSize)
	}
	text := string(content)
	if file.ExpandEnv {
		if text, err = ExpandEnv(text, lookupEnv); err != nil {
			return err
		}
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return oneLine(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("holds more than one document")
	}
	return apply(document.Content[0], "", groups, settings, map[string]bool{})
}

// apply sets what the node holds; prefix is the section that it stands in.
func apply(node *yaml.Node, prefix string, groups map[string]bool, settings map[string]*Setting, seen map[string]bool) error {
	if node.Tag == "!!null" { // "adapter:" with nothing, or a file of comments: the defaults
		return nil
	}
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: %s must be a mapping of keys to values", node.Line, orFile(prefix))
	}
	for i := 0; i < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		key := name.Value
		if prefix != "" {
			key = prefix + "." + key
		}
		if seen[key] {
			return fmt.Errorf("line %d: key %q stands here twice", name.Line, key)
		}
		seen[key] = true
		s, known := settings[key]
		switch {
		case known:
			if err := set(s, value); err != nil {
				return fmt.Errorf("line %d: key %q: %w", value.Line, key, err)
			}
		case groups[key]:
			if err := apply(value, key, groups, settings, seen); err != nil {
				return err
			}
		default:
			return fmt.Errorf("line %d: unknown key %q", name.Line, key)
		}
	}
	return nil
}

func set(s *Setting, value *yaml.Node) error {
	s.Source = "file"
	list, isList := s.flag.Value.(pflag.SliceValue)
	switch {
	case isList && value.Kind == yaml.SequenceNode:
		var items []string
		for _, item := range value.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return fmt.Errorf("must be a list of plain values")
			}
			items = append(items, item.Value)
		}
		return list.Replace(items)
	case isList:
		return fmt.Errorf("must be a list")
	case value.Kind != yaml.ScalarNode:
		return fmt.Errorf("must be one value of type %s", s.flag.Value.Type())
	case value.Tag == "!!null":
		return fmt.Errorf("has no value; leave the key out for the default")
	}
	if err := s.flag.Value.Set(value.Value); err != nil {
		return fmt.Errorf("%q is no %s", value.Value, s.flag.Value.Type())
	}
	return nil
}

func orFile(section string) string {
	if section == "" {
		return "the file"
	}
	return section
}

func oneLine(err error) error {
	return fmt.Errorf("%s", strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
}

// Write prints the settings as a configuration file, each with its source.
func Write(w io.Writer, settings []Setting) error {
	var open []string // the sections that the last line stands in
	for _, s := range settings {
		path := strings.Split(s.Key, ".")
		name, sections := path[len(path)-1], path[:len(path)-1]
		same := 0
		for same < min(len(open), len(sections)) && open[same] == sections[same] {
			same++
		}
		for depth, section := range sections[same:] {
			if _, err := fmt.Fprintf(w, "%s%s:\n", strings.Repeat("  ", same+depth), section); err != nil {
				return err
			}
		}
		open = sections
		value := s.Value
		if s.flag.Value.Type() == "string" {
			value = strconv.Quote(value)
		}
		if _, err := fmt.Fprintf(w, "%s%s: %s # %s\n", strings.Repeat("  ", len(sections)), name, value, s.Source); err != nil {
			return err
		}
	}
	return nil
}
