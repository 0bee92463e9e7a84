package lab

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"golang.org/x/crypto/bcrypt"
	"sigs.k8s.io/yaml"
)

// PrometheusConfig says how a Prometheus is started. The zero value scrapes nothing and lets everybody ask.
type PrometheusConfig struct {
	Jobs []PrometheusJob
	// Rules are files of rules, by their full paths.
	Rules []string
	// ScrapeInterval is how often each target is scraped, and the rules are looked at. Default 1 s.
	ScrapeInterval time.Duration
	// Username and Password are demanded of everybody, if set.
	Username, Password string
	// TLS serves https, with a certificate of an authority that Prometheus.CA names.
	TLS bool
	// ClientCertificates demands a certificate of that authority, as Prometheus.ClientCertificate is one; it implies TLS.
	ClientCertificates bool
}

// PrometheusJob is what a Prometheus scrapes under one name.
type PrometheusJob struct {
	Name    string
	Targets []string          // host:port; SetTargets changes them
	Path    string            // default /metrics
	Labels  map[string]string // added to every series of the job
	// HonorLabels lets series keep a label of their own where Labels has it, too.
	HonorLabels bool
}

// Prometheus is a running Prometheus.
type Prometheus struct {
	Part
	// URL is where it answers, at an address that pods reach.
	URL string
	// CA is the authority of its certificate, and ClientCertificate and ClientKey are what it accepts, all as PEM; empty unless
	// asked for.
	CA, ClientCertificate, ClientKey []byte

	dir    string
	labels map[string]map[string]string // by job
	api    prometheusv1.API
}

// StartPrometheus starts a Prometheus and returns when it answers. It learns of its targets within five seconds after that.
func (l *Lab) StartPrometheus(ctx context.Context, c PrometheusConfig) (*Prometheus, error) {
	name, binary, address, err := l.newPart(ctx, "prometheus")
	if err != nil {
		return nil, err
	}
	p := &Prometheus{dir: l.partDir(name), labels: map[string]map[string]string{}}
	client, err := l.configurePrometheus(p, c, address)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.component, err = l.launch(name, binary, nil, "--config.file="+p.file("prometheus.yaml"), "--web.config.file="+p.file("web.yaml"),
		"--storage.tsdb.path="+p.file("data"), "--storage.tsdb.retention.time=1d", "--web.listen-address="+address+":9090",
		"--scrape.discovery-reload-interval=100ms")
	if err != nil {
		return nil, err
	}
	if err := p.component.await(ctx, "it is ready", get(client, p.URL+"/-/ready")); err != nil {
		p.Stop()
		return nil, err
	}
	l.say("%s answers at %s", name, p.URL)
	return p, nil
}

// configurePrometheus writes its configuration and returns a client that it lets in.
func (l *Lab) configurePrometheus(p *Prometheus, c PrometheusConfig, address string) (*http.Client, error) {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	interval := model.Duration(cmp.Or(c.ScrapeInterval, time.Second))
	var jobs []any
	for _, job := range c.Jobs {
		p.labels[job.Name] = job.Labels
		if err := p.SetTargets(job.Name, job.Targets...); err != nil {
			return nil, err
		}
		jobs = append(jobs, map[string]any{
			"job_name": job.Name, "metrics_path": cmp.Or(job.Path, "/metrics"), "honor_labels": job.HonorLabels,
			// The watch on the file misses nothing, but costs nothing to be sure of.
			"file_sd_configs": []any{map[string]any{"files": []string{p.targets(job.Name)}, "refresh_interval": "1s"}},
		})
	}
	web := map[string]any{}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}
	p.URL = "http://" + address + ":9090"
	if c.Username != "" {
		password, err := bcrypt.GenerateFromPassword([]byte(c.Password), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		web["basic_auth_users"] = map[string]string{c.Username: string(password)}
	}
	if c.TLS || c.ClientCertificates {
		p.URL = "https://" + address + ":9090"
		p.CA = l.pki.ca.certPEM
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(p.CA)
		pair, err := l.pki.ca.issue("prometheus", nil, address)
		if err != nil {
			return nil, err
		}
		if err := p.write("tls.crt", pair.cert); err != nil {
			return nil, err
		}
		if err := p.write("tls.key", pair.key); err != nil {
			return nil, err
		}
		server := map[string]any{"cert_file": "tls.crt", "key_file": "tls.key"}
		if c.ClientCertificates {
			server["client_auth_type"], server["client_ca_file"] = "RequireAndVerifyClientCert", l.pki.file("ca.crt")
			client, err := l.pki.ca.issue("prometheus-reader", nil)
			if err != nil {
				return nil, err
			}
			p.ClientCertificate, p.ClientKey = client.cert, client.key
			own, err := tls.X509KeyPair(client.cert, client.key)
			if err != nil {
				return nil, err
			}
			transport.TLSClientConfig.Certificates = []tls.Certificate{own}
		}
		web["tls_server_config"] = server
	}
	for name, content := range map[string]any{
		"prometheus.yaml": map[string]any{
			"global":         map[string]any{"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
			"rule_files":     c.Rules,
			"scrape_configs": jobs,
		},
		"web.yaml": web,
	} {
		data, err := yaml.Marshal(content)
		if err != nil {
			return nil, err
		}
		if err := p.write(name, data); err != nil {
			return nil, err
		}
	}
	client := &http.Client{Transport: withPassword{transport, c.Username, c.Password}}
	reader, err := api.NewClient(api.Config{Address: p.URL, Client: client})
	if err != nil {
		return nil, err
	}
	p.api = prometheusv1.NewAPI(reader)
	return client, nil
}

// withPassword adds basic authentication, if there is a user.
type withPassword struct {
	next               http.RoundTripper
	username, password string
}

func (w withPassword) RoundTrip(request *http.Request) (*http.Response, error) {
	if w.username != "" {
		request = request.Clone(request.Context())
		request.SetBasicAuth(w.username, w.password)
	}
	return w.next.RoundTrip(request)
}

// SetTargets changes what a job scrapes; it takes effect within five seconds.
func (p *Prometheus) SetTargets(job string, targets ...string) error {
	labels, known := p.labels[job]
	if !known {
		return fmt.Errorf("set targets: Prometheus at %s has no job %q", p.URL, job)
	}
	data, err := json.Marshal([]any{map[string]any{"targets": append([]string{}, targets...), "labels": labels}})
	if err != nil {
		return err
	}
	// Renamed into place, so that it is never read half written.
	if err := p.write("next", data); err != nil {
		return err
	}
	return os.Rename(p.file("next"), p.targets(job))
}

// Query asks for a PromQL expression's value now, as one who is let in.
func (p *Prometheus) Query(ctx context.Context, expression string) (model.Value, error) {
	value, _, err := p.api.Query(ctx, expression, time.Time{})
	return value, err
}

func (p *Prometheus) targets(job string) string { return p.file("targets-" + job + ".json") }

func (p *Prometheus) file(name string) string { return filepath.Join(p.dir, name) }

func (p *Prometheus) write(name string, data []byte) error {
	return os.WriteFile(p.file(name), data, 0o600)
}
