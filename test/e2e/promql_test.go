package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	prometheusapi "github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"pgregory.net/rapid"

	"github.com/kubetide/kubetide/internal/promql"
	"github.com/kubetide/kubetide/test/lab"
)

// drawQuery draws PromQL that nests at most so deep, and looks back over 15 s at most if that is 3.
func drawQuery(t *rapid.T, depth int) string {
	selector := func() string {
		matchers := rapid.SliceOfN(rapid.SampledFrom([]string{
			`tier="a"`, `namespace=~".+"`, `namespace!="mail"`, `pod!="x"`, `pod=~"x|y"`, `namespace=~"shop|mail"`, `namespace="shop"`,
		}), 0, 2).Draw(t, "matchers")
		name := rapid.SampledFrom([]string{"m_one", "m_two", ""}).Draw(t, "name")
		if name == "" {
			matchers = append(matchers, `__name__=~"m_.+"`)
		}
		return name + "{" + strings.Join(matchers, ",") + "}"
	}
	if depth == 0 {
		return selector() + rapid.SampledFrom([]string{"", "", " offset 1s", " @ end()"}).Draw(t, "modifier")
	}
	inner := func() string { return drawQuery(t, depth-1) }
	switch rapid.IntRange(0, 9).Draw(t, "form") {
	case 0:
		return "last_over_time(" + selector() + "[5s])"
	case 1:
		return "max_over_time((" + inner() + ")[4s:1s])"
	case 2:
		return "sum by (pod) (" + inner() + ")"
	case 3:
		return "quantile by (tier) (0.5, " + inner() + ")"
	case 4:
		return "(" + inner() + ") / on (pod, tier, namespace) (" + inner() + ")"
	case 5:
		return "-(" + inner() + ")"
	case 6:
		return "label_replace(" + inner() + `, "namespace", "mail", "tier", "(.*)")`
	case 7:
		return "count(absent(" + inner() + ")) or vector(scalar(sum(" + inner() + ")))"
	case 8:
		return "(" + inner() + ") > bool on (pod, tier, namespace) (" + inner() + ")"
	default:
		return `count_values("namespace", ` + inner() + ") or (" + inner() + ")"
	}
}

// Confined, a query gives what it gives by itself at a Prometheus that has no other namespace's series.
func TestAConfinedQueryGivesWhatItWouldIfThereWereNoOtherNamespace(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "192.0.2.11:0")
	must(t, err)
	exporter := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for ns, v := range map[string]float64{"shop": 1, "mail": 10, "ops": 100} {
			if ns != "shop" && r.URL.Path != "/all" {
				continue
			}
			for _, tier := range []string{"a", "b"} {
				for _, pod := range []string{"x", "y"} {
					v += 0.125
					fmt.Fprintf(w, "m_one{namespace=%[1]q,tier=%[2]q,pod=%[3]q} %[4]g\nm_two{namespace=%[1]q,tier=%[2]q,pod=%[3]q} %[4]g\n", ns, tier, pod, v)
				}
			}
		}
	})}
	go func() { _ = exporter.Serve(listener) }()
	t.Cleanup(func() { _ = exporter.Close() })
	at := time.Time{}
	servers := map[string]prometheusv1.API{}
	for _, series := range []string{"all", "shop"} {
		server, err := cluster.StartPrometheus(t.Context(), lab.PrometheusConfig{Jobs: []lab.PrometheusJob{
			{Name: "m", Targets: []string{listener.Addr().String()}, Path: "/" + series},
		}})
		must(t, err)
		t.Cleanup(server.Stop)
		caller, err := prometheusapi.NewClient(prometheusapi.Config{Address: server.URL})
		must(t, err)
		servers[series] = prometheusv1.NewAPI(caller)
	}
	// result are the lines of the answer, sorted: Prometheus gives them in no order.
	result := func(series, query string) ([]string, error) {
		value, _, err := servers[series].Query(t.Context(), query, at)
		if apiError := (*prometheusv1.Error)(nil); err != nil && !errors.As(err, &apiError) {
			t.Fatal(err)
		} else if err != nil {
			return nil, err
		}
		var lines []string
		if vector, ok := value.(model.Vector); ok {
			for _, s := range vector {
				lines = append(lines, s.String())
			}
			slices.Sort(lines)
			return lines, nil
		}
		return []string{value.String()}, nil
	}
	// An instant before which both have seen everything for long enough.
	eventually(t, 2*time.Minute, func() error {
		at = time.Now().Add(-2 * time.Second)
		for series, count := range map[string]int{"all": 12, "shop": 4} {
			got, err := result(series, `count(count_over_time(m_two[16s]) >= 15)`)
			if err != nil {
				return err
			}
			if want := fmt.Sprintf("{} => %d @", count); len(got) != 1 || !strings.HasPrefix(got[0], want) {
				return fmt.Errorf("the Prometheus with the series of %s has %q, want %q", series, got, want)
			}
		}
		return nil
	})

	some, none, refused := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		text := drawQuery(t, rapid.IntRange(0, 3).Draw(t, "depth"))
		query, err := promql.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		confined, err := query.Confined("namespace", "shop")
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got, gotErr := result("all", confined)
		want, wantErr := result("shop", text)
		if !slices.Equal(got, want) || (gotErr == nil) != (wantErr == nil) {
			t.Fatalf("%s\nconfined: %s\ngives     %q, %v\nand alone %q, %v", text, confined, got, gotErr, want, wantErr)
		}
		switch {
		case wantErr != nil:
			refused++
		case len(want) == 0:
			none++
		default:
			some++
		}
	})
	t.Logf("%d queries had a result, %d an empty one, %d an error", some, none, refused)
	if some < 30 {
		t.Errorf("only %d queries had a result", some)
	}
}
