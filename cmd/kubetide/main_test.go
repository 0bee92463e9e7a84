package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kubetide/kubetide/internal/config"
)

func execute(args ...string) (string, error) {
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestAMistakeOnTheCommandLineIsOneLine(t *testing.T) {
	for name, tt := range map[string]struct {
		args string
		want string
	}{
		"an unknown flag":                              {"server --foo", "unknown flag: --foo; see kubetide server --help"},
		"an unknown command":                           {"serve", `unknown command "serve" for "kubetide"`},
		"an argument":                                  {"server now", `unknown command "now" for "kubetide server"`},
		"a value of the wrong type":                    {"server --secure-port=https", `invalid argument "https" for "--secure-port" flag`},
		"a value out of bounds":                        {"config check --admin.port=-1", "--admin.port: must be between 0 and 65535, is -1"},
		"a file that is not there":                     {"config check --config.path=none.yaml", "configuration file none.yaml: no such file"},
		"a flag of kube-metrics-adapter, not needed":   {"server --resource-update-interval=30s", "flag --resource-update-interval of kube-metrics-adapter: leave it out, HPAs are watched"},
		"a flag of kube-metrics-adapter, another name": {"server --metrics-address=:7979", "flag --metrics-address of kube-metrics-adapter: use --admin.port"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := execute(strings.Fields(tt.args)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
			if out != "" {
				t.Errorf("printed %q besides", out)
			}
		})
	}
}

func TestHelpNamesEverySettingInItsSection(t *testing.T) {
	out, err := execute("server", "--help")
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for _, title := range config.Flags().Order {
		heading := strings.ToUpper(title[:1]) + title[1:] + " flags:"
		next := strings.Index(out[at:], heading)
		if next < 0 {
			t.Fatalf("no %q after position %d in\n%s", heading, at, out)
		}
		at += next
	}
	for _, fs := range config.Flags().FlagSets {
		for line := range strings.Lines(fs.FlagUsages()) {
			if name := strings.Fields(line)[0]; !strings.Contains(out, name+" ") {
				t.Errorf("no %s", name)
			}
		}
	}
}

func TestConfigCheckPrintsWhatHolds(t *testing.T) {
	t.Setenv("KUBETIDE_LOG_LEVEL", "debug")
	out, err := execute("config", "check", "--modules=engine")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"modules: [engine] # flag\n", "  level: \"debug\" # env\n", "  port: 8002 # default\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("no line %q in\n%s", line, out)
		}
	}
}

func TestVersion(t *testing.T) {
	out, err := execute("version")
	if err != nil || !strings.HasPrefix(out, "kubetide ") || strings.Count(out, "\n") != 1 {
		t.Errorf("%q, %v", out, err)
	}
}
