// Command kubetide is the server and what belongs to running it: flags and wiring, nothing else.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/kubetide/kubetide/internal/config"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "kubetide: "+err.Error())
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use: "kubetide", Short: "A metrics adapter and an autoscaling engine for Kubernetes",
		SilenceErrors: true, SilenceUsage: true, DisableSuggestions: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	cmd.AddCommand(serverCommand(), configCommand(), cleanupCommand(), versionCommand())
	return cmd
}

func serverCommand() *cobra.Command {
	cmd := configured(&cobra.Command{
		Use: "server [flags]", Short: "Run the server",
		Long: `Run the server: in a cluster under its service account, outside with --kubeconfig.

Every flag --a-b can also be set by the environment variable KUBETIDE_A_B and in the file of --config.path. A flag goes before
the environment, this before the file, this before the default. "kubetide config check" shows what holds, and from where.`,
	}, func(_ *cobra.Command, c *config.Config, _ []config.Setting) error { return serve(c) })
	cmd.AddCommand(statusCommand())
	return cmd
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	cmd.AddCommand(configured(&cobra.Command{
		Use: "check [flags]", Short: "Check the configuration and print it",
		Long: `Check flags, environment and file as the server reads them, and print all settings that hold in the form of a file, each with
its source. A mistake is printed in one line, with exit code 1.`,
	}, func(cmd *cobra.Command, _ *config.Config, settings []config.Setting) error {
		return config.Write(cmd.OutOrStdout(), settings)
	}))
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "kubetide %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// configured gives the command the server's flags and runs it with the settings that hold.
func configured(cmd *cobra.Command, run func(*cobra.Command, *config.Config, []config.Setting) error) *cobra.Command {
	flags := config.Flags()
	for _, fs := range flags.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	columns, _, _ := term.GetSize(int(os.Stdout.Fd())) // 0, no wrapping, where it is no terminal
	cliflag.SetUsageAndHelpFunc(cmd, flags, columns)
	cmd.Args = cobra.NoArgs
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		name := strings.TrimPrefix(err.Error(), "unknown flag: --")
		if hint, ok := unneeded[name]; ok {
			return fmt.Errorf("flag --%s of kube-metrics-adapter: %s", name, hint)
		}
		return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, settings, err := config.Load(flags, os.LookupEnv)
		if err != nil {
			return err
		}
		return run(cmd, c, settings)
	}
	return cmd
}

// unneeded are kube-metrics-adapter's flags that mean nothing here.
var unneeded = map[string]string{
	"garbage-collector-interval": "leave it out, values end by their age",
	"resource-update-interval":   "leave it out, HPAs are watched",
	"scaling-schedule":           "leave it out, schedules are always served",
	"metrics-address":            "use --admin.port",
	"profiling":                  "use --admin.pprof",
	"v":                          "use --log.level",
	"cert-dir":                   "leave it out, the certificate is kept in a Secret; or use --tls-cert-file",
	"authentication-kubeconfig":  "use --kubeconfig",
	"authorization-kubeconfig":   "use --kubeconfig",
	"client-ca-file":             "leave it out, the API server says whom it trusts",
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
