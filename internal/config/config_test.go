package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type inputs struct {
	file   string
	noFile bool
	env    map[string]string
	args   []string
}

func (in inputs) load(t *testing.T) (*Config, []Setting, error) {
	t.Helper()
	flags := Flags()
	args := in.args
	if !in.noFile {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(in.file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config.path", path, "--config.expand-env"}, args...)
	}
	for len(args) > 0 {
		name, value, inOne := strings.Cut(strings.TrimPrefix(args[0], "--"), "=")
		args = args[1:]
		for _, fs := range flags.FlagSets {
			f := fs.Lookup(name)
			switch {
			case f == nil:
				continue
			case !inOne && f.NoOptDefVal != "":
				value = f.NoOptDefVal
			case !inOne:
				value, args = args[0], args[1:]
			}
			if err := fs.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return Load(flags, func(name string) (string, bool) { v, ok := in.env[name]; return v, ok })
}

func TestTheNearestSourceWins(t *testing.T) {
	for name, tt := range map[string]struct {
		in   inputs
		want func(c *Config)
	}{
		"no file: the defaults":                          {inputs{noFile: true}, func(*Config) {}},
		"an empty file: the defaults":                    {inputs{}, func(*Config) {}},
		"a file of comments: the defaults":               {inputs{file: "# nothing\n"}, func(*Config) {}},
		"a section without keys: the defaults":           {inputs{file: "adapter:\nlog: {}\n"}, func(*Config) {}},
		"an empty document: the defaults":                {inputs{file: "---\n"}, func(*Config) {}},
		"the file over the default":                      {inputs{file: "serving: {secure_port: 7443}"}, func(c *Config) { c.Serving.SecurePort = 7443 }},
		"the environment over the file":                  {inputs{file: "serving: {secure_port: 7443}", env: map[string]string{"KUBETIDE_SECURE_PORT": "7444"}}, func(c *Config) { c.Serving.SecurePort = 7444 }},
		"a flag over the environment and the file":       {inputs{file: "serving: {secure_port: 7443}", env: map[string]string{"KUBETIDE_SECURE_PORT": "7444"}, args: []string{"--secure-port=7445"}}, func(c *Config) { c.Serving.SecurePort = 7445 }},
		"a flag set to its default over the file":        {inputs{file: "serving: {secure_port: 7443}", args: []string{"--secure-port=6443"}}, func(*Config) {}},
		"a list in the file":                             {inputs{file: "modules:\n- engine\n"}, func(c *Config) { c.General.Modules = []string{"engine"} }},
		"a list of a flag over one of the file":          {inputs{file: "modules: [engine]", args: []string{"--modules=adapter,engine,step,stackset"}}, func(*Config) {}},
		"a list of the environment over one of the file": {inputs{file: "modules: [engine]", env: map[string]string{"KUBETIDE_MODULES": "adapter"}}, func(c *Config) { c.General.Modules = []string{"adapter"} }},
		"a key of a dotted flag stands in its section":   {inputs{file: "admin: {port: 9002, pprof: true}\nlog:\n  level: debug\n"}, func(c *Config) { c.Admin = Admin{9002, true}; c.Log.Level = "debug" }},
		"the environment of a dotted flag":               {inputs{env: map[string]string{"KUBETIDE_ADMIN_PORT": "9002"}}, func(c *Config) { c.Admin.Port = 9002 }},
		"the path of the file from the environment":      {inputs{noFile: true, env: map[string]string{"KUBETIDE_CONFIG_PATH": "testdata/engine.yaml"}}, func(c *Config) { c.General.Modules = []string{"engine"} }},
		"a boolean flag without a value":                 {inputs{args: []string{"--disregard-incompatible-hpas"}}, func(c *Config) { c.Adapter.DisregardIncompatibleHPAs = true }},
		"kube-metrics-adapter's name of the kubeconfig":  {inputs{args: []string{"--lister-kubeconfig", "k"}}, func(c *Config) { c.General.Kubeconfig = "k" }},
		"Kapacity's flags of external algorithms": {inputs{args: []string{"--algorithm-job-namespace=jobs", "--algorithm-job-default-service-account=sa",
			"--algorithm-job-default-metrics-server-addr=m:9090", "--algorithm-job-default-image-horizontal-predictive=img"}}, func(c *Config) {
			c.Engine.AlgorithmJobNamespace, c.Engine.AlgorithmJobDefaultServiceAccount = "jobs", "sa"
			c.Engine.AlgorithmJobDefaultMetricsServerAddr, c.Engine.AlgorithmJobDefaultImage = "m:9090", "img"
		}},
		"Steps that may go to zero": {inputs{file: "step: {scale_to_zero: true}"}, func(c *Config) { c.Step.ScaleToZero = true }},
		"stackset-controller's flags": {inputs{args: []string{"--cluster-domain=a.org", "--cluster-domain=b.org", "--sync-ingress-annotation=example.org/a,example.org/b", "--controller-id=blue",
			"--enable-routegroup-support", "--enable-configmap-support", "--enable-secret-support", "--enable-pcs-support", "--enable-forward-support", "--reconcile-workers=3"}}, func(c *Config) {
			c.StackSet = StackSet{ClusterDomains: []string{"a.org", "b.org"}, SyncIngressAnnotations: []string{"example.org/a", "example.org/b"}, ControllerID: "blue",
				RouteGroups: true, ConfigMaps: true, Secrets: true, PlatformCredentialsSets: true, Forward: true}
			c.Engine.ReconcileConcurrency = 3
		}},
		"a duration":                            {inputs{file: "adapter: {default_collection_interval: 1m30s}"}, func(c *Config) { c.Adapter.DefaultCollectionInterval = 90 * time.Second }},
		"a port of 0 means any":                 {inputs{file: "admin: {port: 0}\nwebhook: {port: 0}\nserving: {secure_port: 0}\n"}, func(c *Config) { c.Admin.Port, c.Webhook.Port, c.Serving.SecurePort = 0, 0, 0 }},
		"an IPv6 address":                       {inputs{file: "serving: {bind_address: 'fd00::1'}"}, func(c *Config) { c.Serving.BindAddress = "fd00::1" }},
		"an address from the pod's environment": {inputs{file: "serving: {bind_address: '${POD_IP:::}'}", env: map[string]string{"POD_IP": "fd00::1"}}, func(c *Config) { c.Serving.BindAddress = "fd00::1" }},
		"kube-metrics-adapter's flags, repeated and with commas": {inputs{args: []string{"--prometheus-server=http://p:9090", "--additional-prometheus-server=a=http://a:9090",
			"--additional-prometheus-server=b=http://b:9090/x", "--additional-prometheus-server-token-file=b=/b", "--skipper-backends-annotation=one,two", "--aws-region=eu-central-1"}}, func(c *Config) {
			c.Prometheus.Server, c.Prometheus.Additional = "http://p:9090", []string{"a=http://a:9090", "b=http://b:9090/x"}
			c.Prometheus.AdditionalTokenFiles = []string{"b=/b"}
			c.Ingress.SkipperBackendsAnnotations, c.AWS.Regions = []string{"one", "two"}, []string{"eu-central-1"}
		}},
		"the documented file of a cluster": {inputs{file: "cluster:\n  node_id_prefix: ${POD_NAME}-\n  join:\n    - kubetide\n", env: map[string]string{"POD_NAME": "kubetide-0"}}, func(c *Config) {
			c.Cluster.NodeIDPrefix, c.Cluster.Join = "kubetide-0-", []string{"kubetide"}
		}},
		"a section inside the cluster's": {inputs{file: "cluster: {gossip: {bind_addr: '[fd00::1]:9003'}, stream: {bind_addr: 10.0.0.1:9004}, sharding: off}\n"}, func(c *Config) {
			c.Cluster.GossipBindAddr, c.Cluster.StreamBindAddr, c.Cluster.Sharding = "[fd00::1]:9003", "10.0.0.1:9004", "off"
		}},
		"what a Service of the same name injects is none": {inputs{env: map[string]string{"KUBETIDE_PORT": "tcp://10.96.0.1:443", "KUBETIDE_SERVICE_HOST": "10.96.0.1"}}, func(*Config) {}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := tt.in.load(t)
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			tt.want(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("settings differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMistakesAreNamedInOneLine(t *testing.T) {
	for name, tt := range map[string]struct {
		in   inputs
		want string
	}{
		"an unknown key":                            {inputs{file: "log:\n  level: info\nservign:\n  x: 1\n"}, `line 3: unknown key "servign"`},
		"an unknown key in a section":               {inputs{file: "log:\n  volume: info\n"}, `line 2: unknown key "log.volume"`},
		"a key of another section":                  {inputs{file: "log:\n  port: 1\n"}, `line 2: unknown key "log.port"`},
		"an unknown key deeper":                     {inputs{file: "cluster:\n  gossip: {interval: 1s}\n"}, `line 2: unknown key "cluster.gossip.interval"`},
		"a section that is a value":                 {inputs{file: "cluster:\n  gossip: 8003\n"}, `line 2: cluster.gossip must be a mapping`},
		"addresses without a port":                  {inputs{args: []string{"--cluster.gossip.bind-addr=10.0.0.1"}}, `--cluster.gossip.bind-addr: must be an IP address and a port as in 10.0.0.1:8003, [::1]:8003 or :8003, is "10.0.0.1"`},
		"a node's name with a space":                {inputs{args: []string{"--cluster.node-id=a b"}}, `--cluster.node-id: must be up to 128 letters`},
		"half a cluster":                            {inputs{args: []string{"--cluster.sharding=half", "--cluster.rejoin-interval=1ms"}}, `--cluster.rejoin-interval: must be at least 1s, is 1ms; --cluster.sharding: must be on or off, is "half"`},
		"a port that is taken, in a cluster":        {inputs{args: []string{"--cluster.join=x", "--cluster.stream.bind-addr=:8003"}}, `--cluster.stream.bind-addr: is 8003, as --cluster.gossip.bind-addr is`},
		"a section inside a section":                {inputs{file: "log:\n  log: {level: info}\n"}, `line 2: unknown key "log.log"`},
		"a dotted key":                              {inputs{file: "a: 1\n\"log.level\": info\n"}, `unknown key "a"`},
		"the file's own settings in the file":       {inputs{file: "config: {path: x}"}, `unknown key "config"`},
		"a key twice":                               {inputs{file: "namespace: a\nnamespace: b\n"}, `line 2: key "namespace" stands here twice`},
		"text for a number":                         {inputs{file: "serving:\n  secure_port: https\n"}, `line 2: key "serving.secure_port": "https" is no int`},
		"a number without a unit for a duration":    {inputs{file: "shutdown_delay: 15"}, `key "shutdown_delay": "15" is no duration`},
		"text for a boolean":                        {inputs{file: "admin: {pprof: maybe}"}, `key "admin.pprof": "maybe" is no bool`},
		"a list for a value":                        {inputs{file: "namespace: [a]"}, `key "namespace": must be one value of type string`},
		"a value for a list":                        {inputs{file: "modules: engine"}, `key "modules": must be a list`},
		"a value for a section":                     {inputs{file: "log: debug"}, `line 1: log must be a mapping of keys to values`},
		"a list for the file":                       {inputs{file: "- a"}, `line 1: the file must be a mapping`},
		"a key without a value":                     {inputs{file: "namespace:\n"}, `key "namespace": has no value`},
		"an alias for a value":                      {inputs{file: "namespace: &a x\nkubeconfig: *a\n"}, `key "kubeconfig": must be one value of type string`},
		"two documents":                             {inputs{file: "namespace: a\n---\nnamespace: b\n"}, `holds more than one document`},
		"no YAML":                                   {inputs{file: "a: b: c\n"}, `mapping values are not allowed`},
		"a file that is too large":                  {inputs{file: strings.Repeat("#", maxFileSize+1)}, `is larger than 1048576 bytes`},
		"a file that is not there":                  {inputs{noFile: true, args: []string{"--config.path=testdata/none.yaml"}}, `configuration file testdata/none.yaml: no such file`},
		"an undefined variable":                     {inputs{file: "log: {}\nnamespace: ${NOWHERE}\n"}, `line 2: environment variable NOWHERE is not defined and has no default`},
		"a bad value in the environment":            {inputs{env: map[string]string{"KUBETIDE_SECURE_PORT": "x"}}, `environment variable KUBETIDE_SECURE_PORT`},
		"an unknown module":                         {inputs{args: []string{"--modules=adapter,workload"}}, `--modules: "workload" is no module`},
		"a module twice":                            {inputs{args: []string{"--modules=engine,engine"}}, `--modules: names engine twice`},
		"no module":                                 {inputs{args: []string{"--modules="}}, `--modules: names no module`},
		"a port out of range":                       {inputs{args: []string{"--admin.port=65536"}}, `--admin.port: must be between 0 and 65535, is 65536`},
		"one port for two":                          {inputs{args: []string{"--webhook.port=6443"}}, `--webhook.port: is 6443, as --secure-port is`},
		"an address with a port":                    {inputs{args: []string{"--bind-address=10.0.0.1:80"}}, `--bind-address: must be an IP address without a port`},
		"an interval that is a hot loop":            {inputs{args: []string{"--default-collection-interval=10ms"}}, `--default-collection-interval: must be at least 1s, is 10ms`},
		"an unknown zone":                           {inputs{args: []string{"--scaling-schedule-default-time-zone=Europe/Berlni"}}, `"Europe/Berlni" is no IANA time zone`},
		"a tolerance that is no number":             {inputs{args: []string{"--horizontal-pod-autoscaler-tolerance=NaN"}}, `--horizontal-pod-autoscaler-tolerance: must be at least 0 and below 1`},
		"a delay as long as the grace period":       {inputs{args: []string{"--shutdown-delay=30s"}}, `--grace-period: must be longer than the shutdown delay of 30s`},
		"a level that is none":                      {inputs{args: []string{"--log.level=loud"}}, `--log.level: must be error, info, debug`},
		"a level above the highest":                 {inputs{args: []string{"--log.level=11"}}, `--log.level: must be error, info, debug`},
		"a certificate without a key":               {inputs{args: []string{"--tls-cert-file=a"}}, `--tls-cert-file: must be set together`},
		"an adapter that serves nothing":            {inputs{args: []string{"--enable-custom-metrics-api=false", "--enable-external-metrics-api=false"}}, `--modules: the adapter has nothing to serve`},
		"several mistakes are all named":            {inputs{args: []string{"--log.level=x", "--admin.port=-1"}}, `; --admin.port`},
		"a namespace that can't be one":             {inputs{args: []string{"--namespace=A_b"}}, `--namespace: "A_b"`},
		"no namespace for jobs":                     {inputs{args: []string{"--algorithm-job-namespace=Jobs"}}, `--algorithm-job-namespace: "Jobs" is no name of a namespace`},
		"no account for jobs":                       {inputs{args: []string{"--algorithm-job-default-service-account=a b"}}, `--algorithm-job-default-service-account: "a b" is no name of a ServiceAccount`},
		"an unknown word for validation":            {inputs{args: []string{"--validation=Enforce"}}, `--validation: must be enforce, warn or off, is "Enforce"`},
		"no concurrency":                            {inputs{args: []string{"--reconcile-concurrency=0"}}, `--reconcile-concurrency: must be at least 1`},
		"a rate of 0 that client-go takes for 5":    {inputs{args: []string{"--kube-client-qps=0"}}, `--kube-client-qps: must be above 0`},
		"a list item that is no plain value":        {inputs{file: "modules: [[engine]]"}, `must be a list of plain values`},
		"a negative window":                         {inputs{args: []string{"--scaling-schedule-default-scaling-window=-1s"}}, `must not be negative`},
		"a ramp without a step":                     {inputs{args: []string{"--scaling-schedule-ramp-steps=0"}}, `--scaling-schedule-ramp-steps: must be at least 1`},
		"a service name that can't be one":          {inputs{args: []string{"--service-name=a,a.b"}}, `--service-name: "a.b"`},
		"no service name":                           {inputs{args: []string{"--service-name="}}, `--service-name: names no Service`},
		"values that are never served":              {inputs{args: []string{"--metrics-ttl=0s"}}, `--metrics-ttl: must be at least 1s`},
		"a log format that is none":                 {inputs{args: []string{"--log.format=xml"}}, `--log.format: must be json or console`},
		"an identity without end":                   {inputs{args: []string{"--identity=" + strings.Repeat("a", 254)}}, `--identity: is longer than 253 bytes`},
		"no burst":                                  {inputs{args: []string{"--kube-client-burst=0"}}, `--kube-client-burst: must be at least 1`},
		"a negative delay":                          {inputs{args: []string{"--shutdown-delay=-1s"}}, `--shutdown-delay: must not be negative`},
		"a Prometheus without a scheme":             {inputs{args: []string{"--prometheus-server=prometheus:9090"}}, `--prometheus-server: "prometheus:9090" is no URL`},
		"a password in a URL":                       {inputs{args: []string{"--prometheus-server=http://u:secret@p"}}, `--prometheus-server: must not hold a user or a password`},
		"a password before a host without a scheme": {inputs{args: []string{"--prometheus-server=u:hunter2@p:9090"}}, `--prometheus-server: "..." is no URL`},
		"a server without a name":                   {inputs{args: []string{"--additional-prometheus-server=http://p"}}, `must be name=URL`},
		"a server twice":                            {inputs{args: []string{"--additional-prometheus-server=a=http://p,a=http://q"}}, `names "a" twice`},
		"a token for a server that is not there":    {inputs{args: []string{"--additional-prometheus-server-token-file=a=/f"}}, `there is no --additional-prometheus-server "a"`},
		"credentials for no server":                 {inputs{args: []string{"--prometheus-server-credentials-dir=/d"}}, `has no --prometheus-server to be for`},
		"requests per second without a Prometheus":  {inputs{args: []string{"--skipper-ingress-metrics", "--external-rps-metrics"}}, `--skipper-ingress-metrics: needs --prometheus-server; --external-rps-metrics`},
		"a role that is none":                       {inputs{args: []string{"--aws-assumable-roles=admin"}}, `--aws-assumable-roles: "admin" is no role's ARN`},
		"two tokens for one":                        {inputs{args: []string{"--influxdb-token=a", "--influxdb-token-file=b"}}, `--influxdb-token: cannot be used together`},
		"a network that is none":                    {inputs{args: []string{"--outbound-allow=10.0.0.0/33"}}, `--outbound-allow: "10.0.0.0/33" is neither a prefix`},
		"a port that is none":                       {inputs{args: []string{"--outbound-ports=http"}}, `--outbound-ports: "http" is neither a port`},
		"a host with a port":                        {inputs{args: []string{"--outbound-hosts=a.b:80"}}, `--outbound-hosts: "a.b:80" is no host`},
		"a budget of nothing":                       {inputs{args: []string{"--outbound-requests-per-second=0"}}, `--outbound-requests-per-second: must be above 0`},
		"the machine's zone, which differs by pod":  {inputs{args: []string{"--scaling-schedule-default-time-zone=Local"}}, `"Local" is no IANA time zone`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := tt.in.load(t)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestExpandEnv(t *testing.T) {
	env := map[string]string{"A": "x", "EMPTY": "", "MULTI": "$A ${A}"}
	for name, tt := range map[string]struct{ text, want, err string }{
		"a variable":                               {text: "a: ${A}", want: "a: x"},
		"twice on a line":                          {text: "${A}${A}", want: "xx"},
		"a default that is not needed":             {text: "${A:y}", want: "x"},
		"a default for what is unset":              {text: "${NO:y}", want: "y"},
		"a default for what is empty":              {text: "${EMPTY:y}", want: "y"},
		"an empty default":                         {text: "[${NO:}]", want: "[]"},
		"a default with colons":                    {text: "${NO:http://a:80}", want: "http://a:80"},
		"an empty variable without default":        {text: "[${EMPTY}]", want: "[]"},
		"an escaped dollar":                        {text: "$$", want: "$"},
		"an escaped variable":                      {text: "$${A} $$A", want: "${A} $A"},
		"a group of a replacement in PromQL":       {text: `label_replace(up, "a", "$1-${1}", "b", "(.*)$")`, want: `label_replace(up, "a", "$1-${1}", "b", "(.*)$")`},
		"a bare variable":                          {text: "$A", want: "$A"},
		"a value is not expanded again":            {text: "${MULTI}", want: "$A ${A}"},
		"an open brace":                            {text: "${A", want: "${A"},
		"a default does not go on the next line":   {text: "${NO:a\n}", want: "${NO:a\n}"},
		"an undefined one, with its line":          {text: "a\nb ${A}\nc ${NO}", err: "line 3: environment variable NO is not defined and has no default"},
		"an undefined one after an escaped dollar": {text: "$$${NO}", err: "line 1: environment variable NO"},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ExpandEnv(tt.text, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTokensAreNotShown(t *testing.T) {
	_, settings, err := inputs{args: []string{"--influxdb-token=hush", "--token=hush"}}.load(t)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Write(&out, settings); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "hush") || strings.Count(out.String(), "(hidden)") != 2 {
		t.Error(out.String())
	}
}

func TestServersAreWhatTheFlagsSayOfEach(t *testing.T) {
	p := Prometheus{Server: "http://p", ServerTokenFile: "/t", Additional: []string{"a=http://a?x=y", "b=http://b"},
		AdditionalTokenFiles: []string{"b=/b"}, CredentialsDirs: []string{"/d", "a=/da"}}
	want := []PrometheusServer{{URL: "http://p", TokenFile: "/t", CredentialsDir: "/d"}, {Name: "a", URL: "http://a?x=y", CredentialsDir: "/da"},
		{Name: "b", URL: "http://b", TokenFile: "/b"}}
	if diff := cmp.Diff(want, p.Servers()); diff != "" {
		t.Error(diff)
	}
}

func TestSettingsSayWhereTheyAreFrom(t *testing.T) {
	_, settings, err := inputs{file: "log: {level: debug}", env: map[string]string{"KUBETIDE_LOG_FORMAT": "console"}, args: []string{"--admin.port=1"}}.load(t)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range settings {
		got[s.Key] = s.Value + " " + s.Source
	}
	for key, want := range map[string]string{
		"log.level": "debug file", "log.format": "console env", "admin.port": "1 flag", "serving.secure_port": "6443 default",
		"adapter.metrics_ttl": "15m0s default", "namespace": "kubetide-system default",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

func TestWhatIsWrittenCanBeRead(t *testing.T) {
	want, settings, err := inputs{args: []string{"--bind-address=fd00::1", "--modules=engine", "--metrics-ttl=90s", "--kubeconfig=a: #b", "--admin.pprof"}}.load(t)
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	if err := Write(&file, settings); err != nil {
		t.Fatal(err)
	}
	got, _, err := inputs{file: file.String()}.load(t)
	if err != nil {
		t.Fatalf("%v in\n%s", err, &file)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings differ (-want +got):\n%s", diff)
	}
}

func TestEveryFlagHasAHelpThatIsASentence(t *testing.T) {
	for title, fs := range Flags().FlagSets {
		for line := range strings.Lines(fs.FlagUsages()) {
			if !strings.Contains(line, ".") {
				t.Errorf("%s: %q", title, line)
			}
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("log: {level: debug}")
	f.Add("a: &a [*a]\n<<: *a")
	f.Add("modules: [${A:b}]\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		config, _, err := inputs{file: text}.load(t)
		if (config == nil) != (err != nil) {
			t.Errorf("settings %v with error %v", config, err)
		}
	})
}
