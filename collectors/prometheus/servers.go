package prometheus

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	// reread is how long credentials from files are used before the files are read again.
	reread = 5 * time.Second
	// maxFile is the size of one such file in bytes.
	maxFile = 256 << 10
	// maxSeries and maxParts bound an answer besides its size, because small parts take many times their size in memory.
	maxSeries = 5_000
	maxParts  = 50_000
	// maxText is how much is told of a query, a series, or what a server said.
	maxText = 200
)

// Server is one Prometheus that the operator named. The default one has the name "".
type Server struct {
	Name, URL string
	// TokenFile holds a bearer token; empty for none.
	TokenFile string
	// CredentialsDir holds the files token, or username and password; ca.crt; tls.crt and tls.key, as far as they are needed;
	// empty for none. These files and TokenFile are read again when they change.
	CredentialsDir string
}

// Servers are the servers that the operator named.
type Servers struct {
	client *outbound.Client
	clock  clock.PassiveClock
	byName map[string]*server
}

// NewServers prepares the servers; it asks nobody. The client has no address policy, for the operator chose the addresses.
func NewServers(servers []Server, client *outbound.Client, clock clock.PassiveClock) (*Servers, error) {
	s := &Servers{client: client, clock: clock, byName: map[string]*server{}}
	for _, config := range servers {
		u, err := url.Parse(config.URL)
		if err == nil {
			err = client.Check(u)
		}
		if err != nil {
			return nil, fmt.Errorf("prometheus server %q: %w", config.Name, err)
		}
		if s.byName[config.Name] != nil {
			return nil, fmt.Errorf("there are two prometheus servers %q", config.Name)
		}
		s.byName[config.Name] = &server{Server: config, url: u, client: client, clock: clock}
	}
	return s, nil
}

// Instant asks the default server for one number now, on behalf of the namespace, whose budget pays. age is how much older
// than now the server says that the value is. An empty result and a number that is not finite are sample.ErrNoData. What a
// server warns of concerns the query, which is Kubetide's own, so nobody is told.
func (s *Servers) Instant(ctx context.Context, namespace, query string) (value float64, age time.Duration, err error) {
	to, err := s.named("")
	if err != nil {
		return 0, 0, err
	}
	client, credentials, err := to.login()
	if err != nil {
		return 0, 0, err
	}
	value, age, err = endpoint{url: to.url, client: client, credentials: credentials}.ask(ctx, namespace, query, s.clock.Now())
	if collectors.IsWarning(err) {
		err = nil
	}
	return value, age, err
}

func (s *Servers) named(name string) (*server, error) {
	if to := s.byName[name]; to != nil {
		return to, nil
	}
	known := slices.Sorted(maps.Keys(s.byName))
	if len(known) > 0 && known[0] == "" {
		known = known[1:]
	}
	list := "there are none"
	if len(known) > 0 {
		list = "known: " + strings.Join(known, ", ")
	}
	if name == "" {
		return nil, fmt.Errorf("there is no default Prometheus (--prometheus-server); name one by %s (%s) or %s", keyAlias, list, keyServer)
	}
	return nil, fmt.Errorf("there is no Prometheus named %.100q (--additional-prometheus-server); %s", name, list)
}

// server is a Server with what its files held last.
type server struct {
	Server
	url    *url.URL
	client *outbound.Client
	clock  clock.PassiveClock

	mu          sync.Mutex // protects all below
	read        time.Time
	last        *outbound.Client
	credentials *outbound.Credentials
	err         error
}

// login returns the client and the credentials to use now.
func (s *server) login() (*outbound.Client, *outbound.Credentials, error) {
	if s.TokenFile == "" && s.CredentialsDir == "" {
		return s.client, nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.clock.Now(); s.read.IsZero() || now.Sub(s.read) >= reread {
		s.read = now
		s.last, s.credentials, s.err = s.load()
	}
	return s.last, s.credentials, s.err
}

func (s *server) load() (*outbound.Client, *outbound.Credentials, error) {
	data := map[string][]byte{}
	if s.CredentialsDir != "" {
		for _, key := range []string{outbound.KeyToken, outbound.KeyUsername, outbound.KeyPassword, outbound.KeyCA, outbound.KeyCert, outbound.KeyKey} {
			content, err := readFile(filepath.Join(s.CredentialsDir, key))
			switch {
			case err == nil:
				data[key] = content
			case !errors.Is(err, fs.ErrNotExist):
				return nil, nil, fmt.Errorf("credentials of prometheus server %s: %w", s.url.Host, err)
			}
		}
	}
	if s.TokenFile != "" {
		token, err := readFile(s.TokenFile)
		if err == nil && len(bytes.TrimSpace(token)) == 0 {
			err = fmt.Errorf("%s is empty", s.TokenFile)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("token of prometheus server %s: %w", s.url.Host, err)
		}
		data[outbound.KeyToken] = token
	}
	client, credentials, err := s.client.WithSecret(s.url.Host, data)
	if err != nil {
		return nil, nil, fmt.Errorf("credentials of prometheus server %s: %s: %w", s.url.Host, cmp.Or(s.CredentialsDir, s.TokenFile), err)
	}
	return client, credentials, nil
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(content) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return content, err
}

// endpoint is where one question goes.
type endpoint struct {
	url         *url.URL
	client      *outbound.Client
	credentials *outbound.Credentials
}

// ask asks for the value at the instant.
func (e endpoint) ask(ctx context.Context, namespace, query string, at time.Time) (value float64, age time.Duration, err error) {
	client, err := promapi.NewClient(promapi.Config{
		Address: e.url.String(), RoundTripper: bounded{e.client.RoundTripper(namespace, Name, e.credentials)},
	})
	if err != nil {
		return 0, 0, outbound.WithoutURL(err)
	}
	at = at.Truncate(time.Millisecond) // as servers do, so that their rounding is no age
	result, warnings, err := promv1.NewAPI(client).Query(ctx, query, at)
	if err != nil {
		return 0, 0, fmt.Errorf("prometheus server %s: %w", e.url.Host, plain(err))
	}
	doubt, incomplete := judge(warnings)
	if incomplete != nil {
		return 0, 0, fmt.Errorf("prometheus server %s: query %s: %w", e.url.Host, shortQuery(query), incomplete)
	}
	value, when, warning, err := number(result)
	switch {
	case errors.Is(err, errEmpty):
		return 0, 0, sample.NoData("query %s did not result a valid response: the result is empty", shortQuery(query))
	case err != nil:
		return 0, 0, fmt.Errorf("prometheus server %s: query %s: %w", e.url.Host, shortQuery(query), err)
	}
	if _, err := sample.Milli(value); err != nil {
		return 0, 0, sample.NoData("query %s did not result a valid response: its value is %v, and %v is needed", shortQuery(query), value, errFinite)
	}
	return value, max(0, at.Sub(when.Time())), cmp.Or(warning, doubt)
}

// judge tells what Prometheus thinks of a query from what a server could not read: Thanos and remote storage answer with the rest,
// and a sum of that is a wrong number, an empty rest no lack of data.
func judge(warnings []string) (doubt, incomplete error) {
	for _, w := range warnings {
		switch {
		case strings.HasPrefix(w, "PromQL info"):
		case !strings.HasPrefix(w, "PromQL warning"):
			return nil, fmt.Errorf("the result is not complete: %s", short(w))
		case doubt == nil:
			doubt = &collectors.Warning{Err: fmt.Errorf("the server warns: %s", short(w))}
		}
	}
	return doubt, nil
}

var (
	errEmpty  = errors.New("the result is empty")
	errFinite = errors.New("a finite number between -9.2e15 and 9.2e15")
)

// number takes the one value out of a result. Of several series it is that of the one whose labels sort first, with a
// warning: which one a server puts first says nothing.
func number(result model.Value) (value float64, when model.Time, warning, err error) {
	switch v := result.(type) {
	case *model.Scalar:
		if v == nil || v.Timestamp == 0 {
			return 0, 0, nil, errors.New("the answer has no value")
		}
		return float64(v.Value), v.Timestamp, nil, nil
	case model.Vector:
		if len(v) == 0 {
			return 0, 0, nil, errEmpty
		}
		if slices.Contains(v, nil) {
			return 0, 0, nil, errors.New("the answer has no value")
		}
		first := v[0]
		if len(v) > 1 {
			name := first.Metric.String()
			for _, s := range v[1:] {
				if other := s.Metric.String(); other < name {
					first, name = s, other
				}
			}
			warning = &collectors.Warning{Err: &severalError{count: len(v), first: short(name)}}
		}
		switch {
		case first.Histogram != nil:
			return 0, 0, nil, errors.New("the result is a native histogram, not a number; use a function such as histogram_quantile() or histogram_count()")
		case first.Timestamp == 0:
			return 0, 0, nil, errors.New("the answer has no value")
		}
		return float64(first.Value), first.Timestamp, warning, nil
	case nil:
		return 0, 0, nil, errors.New("the answer has no result")
	default:
		return 0, 0, nil, fmt.Errorf("the result is a %s, not a number", result.Type())
	}
}

// severalError warns of a result that is more than one number.
type severalError struct {
	count int
	first string
}

func (e *severalError) Error() string {
	return fmt.Sprintf("the query gives %d series, and the value of the one whose labels sort first is served, that of %s; "+
		"make it one, with sum() or max() for example", e.count, e.first)
}

// Outline implements collectors.Outlined.
func (e *severalError) Outline() string { return "the query gives several series" }

// plain says what went wrong in words that hold nothing of an answer that may not be Prometheus' at all: a tenant chose the
// address, and must not read there through Kubetide's errors.
func plain(err error) error {
	failed := (*promv1.Error)(nil)
	if errors.As(err, &failed) {
		switch failed.Type {
		case promv1.ErrClient, promv1.ErrServer:
			status := 0
			if _, scanErr := fmt.Sscanf(failed.Msg[strings.LastIndex(failed.Msg, " ")+1:], "%d", &status); scanErr == nil {
				return &outbound.StatusError{Status: status}
			}
		case promv1.ErrBadResponse:
		default: // a server's own; they have words of their own for the type
			return fmt.Errorf("%s: %s", short(string(failed.Type)), short(failed.Msg))
		}
		return errForeign
	}
	var sent *url.Error
	if errors.As(err, &sent) || outbound.Kind(err) != "other" {
		return outbound.WithoutURL(err)
	}
	return errForeign // the parser's words quote what it read
}

var errForeign = &outbound.BrokenError{Err: errors.New("the answer is not that of a Prometheus API; is the URL the server's root?")}

func shortQuery(query string) string { return "'" + short(query) + "'" }

func short(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// bounded refuses answers that would take many times their size in memory when they are decoded.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		return nil, err
	}
	if bytes.Count(body, []byte("{")) > 2*maxSeries+2 || bytes.Count(body, []byte("["))+bytes.Count(body, []byte(",")) > maxParts {
		return nil, &outbound.BrokenError{Err: fmt.Errorf("the answer has more than %d series or %d parts; the query should give one number", maxSeries, maxParts)}
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}
