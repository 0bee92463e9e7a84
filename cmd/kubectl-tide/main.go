// Command kubectl-tide is a plugin of kubectl that asks Kubetide why a workload has the replicas that it has and what its metrics say, finds
// what makes scaling go wrong, and shows and shares out the traffic of StackSets. It acts with the caller's own rights, and writes nothing but the weights that it is told.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
)

// The exit codes besides 0.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	p := plugin{out: os.Stdout, err: os.Stderr, screen: term.IsTerminal(int(os.Stdout.Fd())), clock: clock.RealClock{}, zone: time.Local}
	os.Exit(p.run(os.Args[1:]))
}

// plugin is one call of the command.
type plugin struct {
	out, err io.Writer
	// screen tells that out can be cleared.
	screen bool
	clock  clock.PassiveClock
	zone   *time.Location
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (p plugin) run(args []string) int {
	cmd := p.root()
	cmd.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	p.say(err.Error())
	if u := (usageError{}); errors.As(err, &u) {
		return exitUsage
	}
	return exitFailed
}

func (p plugin) root() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "kubectl-tide", Short: "Ask Kubetide why a workload has its replicas, find what is wrong, and share out traffic",
		Long: `Ask Kubetide why a workload has the replicas that it has and what its metrics say, find what makes scaling go wrong, and show and share out
the traffic of StackSets.

Exit codes: 0, or 1 if there is no answer, or 2 if the command line is wrong.`,
		SilenceErrors: true, SilenceUsage: true,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl tide"},
	})
	cmd.SetOut(p.out)
	cmd.SetErr(p.err)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	rules, overrides := clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{}
	cmd.PersistentFlags().StringVar(&rules.ExplicitPath, clientcmd.RecommendedConfigPathFlag, "", "Path to the kubeconfig file")
	clientcmd.BindOverrideFlags(overrides, cmd.PersistentFlags(), clientcmd.RecommendedConfigOverrideFlags(""))
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	cmd.AddCommand(p.explainCommand(config), p.doctorCommand(config), p.historyCommand(config), p.getCommand(config), p.trafficCommand(config), p.metricsCommand(config), p.topCommand(config), p.completionCommand(), p.versionCommand())
	return cmd
}

// group makes the command one that consists of others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("there is no command %q; see %s --help", args[0], cmd.CommandPath())}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, and not %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

// asked is a type of object that a command is about.
type asked struct {
	// short is how examples call it, known how messages do, and names are what else it is called.
	short, known string
	names        []string
}

var (
	ihpas = asked{"ihpa", "ihpa (IntelligentHorizontalPodAutoscaler)",
		[]string{"intelligenthorizontalpodautoscaler", "intelligenthorizontalpodautoscalers", "intelligenthorizontalpodautoscalers.autoscaling.kapacitystack.io"}}
	stackSets = asked{"stackset", "stackset", []string{resourceStackSet, "stackset.zalando.org", "stacksets.zalando.org"}}
)

// is tells that the type has that name.
func (a asked) is(kind string) bool {
	kind = strings.ToLower(kind)
	return kind == a.short || slices.Contains(a.names, kind)
}

// name reads TYPE/NAME or TYPE NAME, of the type.
func name(cmd *cobra.Command, args []string, of asked) (string, error) {
	_, name, err := oneOf(cmd, args, of)
	return name, err
}

// oneOf reads TYPE/NAME or TYPE NAME, of one of the types; messages take the first as the example.
func oneOf(cmd *cobra.Command, args []string, types ...asked) (asked, string, error) {
	kind, name, ok := "", "", false
	switch len(args) {
	case 1:
		kind, name, ok = strings.Cut(args[0], "/")
	case 2:
		kind, name, ok = args[0], args[1], true
	}
	if !ok || !named(name) {
		return asked{}, "", usageError{fmt.Errorf("name one object, as %s %s/NAME; see %s --help", cmd.CommandPath(), types[0].short, cmd.CommandPath())}
	}
	var known []string
	for _, of := range types {
		if of.is(kind) {
			return of, name, nil
		}
		known = append(known, of.known)
	}
	return asked{}, "", usageError{fmt.Errorf("%s knows nothing of the type %q: what it is about is %s", cmd.CommandPath(), kind, strings.Join(known, " and "))}
}

// named tells that a name leads nowhere else in a URL.
func named(name string) bool { return name != "" && !strings.ContainsAny(name, "/%") }

// question is what a command asks the API server, once its arguments are understood, and shows in a format.
type question func(ctx context.Context, r *reader, as format) error

// format is the flag --output.
type format string

const (
	asText format = "text"
	asJSON format = "json"
	asYAML format = "yaml"
)

// asks makes the command one that asks what it reads from its arguments.
func (p plugin) asks(cmd *cobra.Command, config clientcmd.ClientConfig, read func(args []string) (question, error)) *cobra.Command {
	output := cmd.Flags().StringP("output", "o", string(asText), "Format: text, json or yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask, err := read(args)
		if err != nil {
			return err
		}
		as := format(*output)
		if as != asText && as != asJSON && as != asYAML {
			return usageError{fmt.Errorf("--output is text, json or yaml, not %q", as)}
		}
		r, err := newReader(config)
		if err != nil {
			return err
		}
		return ask(cmd.Context(), r, as)
	}
	return cmd
}

// show prints an answer, as text with the printer's method for it.
func show[T any](p plugin, as format, answer T, text func(printer, T) error) error {
	switch as {
	case asJSON:
		return printJSON(p.out, answer)
	case asYAML:
		return printYAML(p.out, answer)
	}
	return text(p.printer(), answer)
}

// separate comes before each answer of those that follow each other.
func (p plugin) separate(as format, first bool) {
	switch {
	case as == asJSON, as == asYAML && first:
	case as == asYAML:
		fmt.Fprintln(p.out, "---")
	case p.screen:
		fmt.Fprint(p.out, "\x1b[H\x1b[2J")
	case !first:
		fmt.Fprintln(p.out)
	}
}

// say tells beside the answer.
func (p plugin) say(text string) { fmt.Fprintln(p.err, "kubectl tide: "+printable(text)) }

func (p plugin) explainCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain ihpa/NAME", Short: "Say why an object has its replicas, and what would change them",
		Long: `Say why an object has its replicas: what each portrait provider asked for, what each stage made of that, what comes next, and
what would change it. It needs the right to get decisions.tide.kubetide.io in the namespace, which the role view has; without an
answer from there it shows the last decision that the object's status has, and says so.`,
		Example: `  kubectl tide explain ihpa/cart -n shop
  kubectl tide explain ihpa/cart -n shop -o json | jq .decision.steps`,
	}
	return p.asks(completes(cmd, config, ihpas), config, func(args []string) (question, error) {
		name, err := name(cmd, args, ihpas)
		return func(ctx context.Context, r *reader, as format) error {
			d, note, err := r.explain(ctx, name)
			if err != nil {
				return err
			}
			if note != "" {
				p.say(note)
			}
			return show(p, as, d, printer.explain)
		}, err
	})
}

func (p plugin) historyCommand(config clientcmd.ClientConfig) *cobra.Command {
	cmd := &cobra.Command{
		Use: "history ihpa/NAME", Short: "List the last decisions about an object, oldest first",
		Long: `List the last decisions about an object, oldest first. Kubetide keeps the last 100 of each object in memory; they are lost when
another replica takes the lead.`,
		Example: `  kubectl tide history ihpa/cart -n shop
  kubectl tide history ihpa/cart -n shop --limit 5 -o json`,
	}
	limit := cmd.Flags().Uint32("limit", 20, "How many decisions to list, the last ones; 0 for all")
	return p.asks(completes(cmd, config, ihpas), config, func(args []string) (question, error) {
		name, err := name(cmd, args, ihpas)
		return func(ctx context.Context, r *reader, as format) error {
			h, err := r.history(ctx, name, *limit)
			if err != nil {
				return err
			}
			return show(p, as, h, printer.history)
		}, err
	})
}

func (p plugin) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(p.out, "kubectl-tide %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// version is the module's, or the commit's that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
