package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	clocktesting "k8s.io/utils/clock/testing"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

// cluster answers as an API server, and is used through a kubeconfig with the namespace shop.
type cluster struct {
	kubeconfig string

	mu    sync.Mutex // discovery asks several things at once
	asked []string   // read once nothing asks any more
}

const (
	decisionPath = "/apis/tide.kubetide.io/v1alpha1/namespaces/shop/decisions/cart"
	historyPath  = decisionPath + "/history"
	ihpaPath     = "/apis/autoscaling.kapacitystack.io/v1alpha1/namespaces/shop/intelligenthorizontalpodautoscalers/cart"
)

// kubeconfigOf is the path of a kubeconfig for the server, with the namespace shop.
func kubeconfigOf(t *testing.T, web *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	config := clientcmdapi.NewConfig()
	config.Clusters["k"] = &clientcmdapi.Cluster{Server: web.URL}
	config.Contexts["k"] = &clientcmdapi.Context{Cluster: "k", Namespace: "shop"}
	config.CurrentContext = "k"
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

type answer struct {
	code int
	body any // a string is sent as it is; a function is asked for the answer
}

func newCluster(t *testing.T, answers map[string]answer) *cluster {
	t.Helper()
	c := &cluster{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.asked = append(c.asked, r.URL.RequestURI())
		c.mu.Unlock()
		a, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if next, ok := a.body.(func() answer); ok {
			a = next()
		}
		if text, ok := a.body.(string); ok {
			http.Error(w, text, a.code)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.code)
		if err := json.NewEncoder(w).Encode(a.body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(web.Close)
	c.kubeconfig = kubeconfigOf(t, web)
	return c
}

func (c *cluster) run(at time.Time, args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	p := plugin{out: &stdout, err: &stderr, clock: clocktesting.NewFakePassiveClock(at), zone: time.UTC}
	code = p.run(append([]string{"--kubeconfig=" + c.kubeconfig}, args...))
	return code, stdout.String(), stderr.String()
}

func status(code int32, reason metav1.StatusReason, kind, message string) answer {
	s := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
	if kind != "" {
		s.Details = &metav1.StatusDetails{Group: "tide.kubetide.io", Kind: kind, Name: "cart"}
	}
	return answer{int(code), s}
}

// The API server chooses a replica anew for each request, and only the one that leads has records.
func TestItIsAskedUntilTheLeaderAnswers(t *testing.T) {
	s := situations(t)["steady"]
	d := s.explain()
	history := map[string]any{"kind": "DecisionHistory", "apiVersion": "tide.kubetide.io/v1alpha1", "metadata": d.ObjectMeta, "objectKind": d.ObjectKind, "decisions": []any{s.Record.API()}}
	for args, leader := range map[string]answer{"explain ihpa/cart": {200, d}, "history ihpa/cart": {200, history}} {
		var asked atomic.Int32
		answers := answer{body: func() answer {
			if asked.Add(1) < tries {
				return status(503, metav1.StatusReasonServiceUnavailable, "", "this replica takes no decisions; the one that leads is kubetide-1")
			}
			return leader
		}}
		code, out, errs := newCluster(t, map[string]answer{decisionPath: answers, historyPath: answers}).run(s.Record.Time, strings.Fields(args)...)
		if code != 0 || errs != "" || !strings.Contains(out, "stays at 4 online") {
			t.Errorf("%s, asked %d times: exit code %d, %q, %q", args, asked.Load(), code, out, errs)
		}
	}
}

func TestWhatIsAskedAndWhatIsSaidAboutErrors(t *testing.T) {
	s := situations(t)["steady"]
	record := s.Record.API()
	d := s.explain()
	one := int32(1)
	ihpa := kapacity.IntelligentHorizontalPodAutoscaler{TypeMeta: metav1.TypeMeta{APIVersion: kapacity.SchemeGroupVersion.String(), Kind: kapacity.IHPAKind},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}, Status: kapacity.IntelligentHorizontalPodAutoscalerStatus{LastDecision: &kapacity.DecisionRecord{
			Time: metav1.NewMicroTime(s.Record.Time), Trigger: "spec changed", Result: "from the status",
			Candidates: []kapacity.DecisionCandidate{{Provider: "Static", Replicas: &one, Chosen: true, Reason: "wins"}}, Steps: []kapacity.DecisionStep{{Stage: "clamp", Replicas: 1}}}}}
	fresh := ihpa.DeepCopy()
	fresh.Status = kapacity.IntelligentHorizontalPodAutoscalerStatus{}
	history := map[string]any{"kind": "DecisionHistory", "apiVersion": "tide.kubetide.io/v1alpha1", "metadata": d.ObjectMeta, "objectKind": d.ObjectKind, "decisions": []any{record}}
	undecided := status(404, metav1.StatusReasonNotFound, "decisions", "nothing has been decided about cart")
	forbidden := status(403, metav1.StatusReasonForbidden, "decisions", "decisions.tide.kubetide.io \"cart\" is forbidden")
	follower := status(503, metav1.StatusReasonServiceUnavailable, "", "this replica takes no decisions; the one that leads is kubetide-1")
	for name, test := range map[string]struct {
		answers map[string]answer
		args    string
		code    int
		out     []string
		err     []string
	}{
		"an explanation":                       {map[string]answer{decisionPath: {200, d}}, "explain ihpa/cart", 0, []string{"shop/cart", "stays at 4 online", "Pods metric"}, nil},
		"an explanation in JSON":               {map[string]answer{decisionPath: {200, d}}, "explain ihpa cart -o json", 0, []string{`"kind": "Decision"`, `"result": "stays at 4 online, 0 cut off"`}, nil},
		"an explanation in YAML":               {map[string]answer{decisionPath: {200, d}}, "explain ihpa cart -o yaml", 0, []string{"kind: Decision\n", "result: stays at 4 online, 0 cut off\n"}, nil},
		"an object without a decision":         {map[string]answer{decisionPath: undecided, ihpaPath: {200, fresh}}, "explain ihpa/cart", 1, nil, []string{"nothing has been decided", "its status has no decision yet"}},
		"an object that is not there":          {map[string]answer{decisionPath: undecided}, "explain ihpa/cart", 1, nil, []string{"there is no IntelligentHorizontalPodAutoscaler shop/cart"}},
		"a new leader, from the status":        {map[string]answer{decisionPath: undecided, ihpaPath: {200, ihpa}}, "explain ihpa/cart", 0, []string{"from the status", "* Static"}, []string{"nothing has been decided", "last decision that the object's status has"}},
		"a cluster without the group":          {map[string]answer{ihpaPath: {200, ihpa}}, "explain ihpa/cart", 0, []string{"from the status"}, []string{"does not serve tide.kubetide.io/v1alpha1"}},
		"a replica that does not lead":         {map[string]answer{decisionPath: follower, ihpaPath: {200, ihpa}}, "explain ihpa/cart", 0, []string{"from the status"}, []string{"the one that leads is kubetide-1"}},
		"a service without pods":               {map[string]answer{decisionPath: {503, "service unavailable"}, ihpaPath: {200, ihpa}}, "explain ihpa/cart", 0, []string{"from the status"}, []string{"kubectl get apiservice v1alpha1.tide.kubetide.io"}},
		"a reader who may read the IHPA only":  {map[string]answer{decisionPath: forbidden, ihpaPath: {200, ihpa}}, "explain ihpa/cart", 0, []string{"from the status"}, []string{"bind the ClusterRole kubetide-decisions-viewer"}},
		"a reader who may read nothing":        {map[string]answer{decisionPath: forbidden, ihpaPath: forbidden}, "explain ihpa/cart", 1, nil, []string{"may not read decisions in namespace shop", "its status can't be read"}},
		"a history":                            {map[string]answer{historyPath: {200, history}}, "history ihpa/cart", 0, []string{"stays at 4 online", "merge 4, clamp 4, gray 4"}, nil},
		"a history in JSON":                    {map[string]answer{historyPath: {200, history}}, "history ihpa/cart -o json", 0, []string{`"kind": "DecisionHistory"`}, nil},
		"a history that may not be read":       {map[string]answer{historyPath: forbidden}, "history ihpa/cart", 1, nil, []string{"bind the ClusterRole kubetide-decisions-viewer"}},
		"a history without the group":          {nil, "history ihpa/cart", 1, nil, []string{"does not serve tide.kubetide.io/v1alpha1"}},
		"an unknown type":                      {nil, "explain deployment/cart", 2, nil, []string{`knows nothing of the type "deployment": what it is about is ihpa`}},
		"no object":                            {nil, "explain", 2, nil, []string{"name one object"}},
		"a name that leads elsewhere":          {nil, "explain ihpa ../x", 2, nil, []string{"name one object"}},
		"a bad format":                         {nil, "explain ihpa/cart -o xml", 2, nil, []string{"--output is text, json or yaml"}},
		"a bad flag":                           {nil, "history ihpa/cart --limit=x", 2, nil, []string{"--limit", "kubectl tide history --help"}},
		"an unknown command":                   {nil, "delete", 2, nil, []string{`no command "delete"`}},
		"the version":                          {nil, "version", 0, []string{"kubectl-tide "}, nil},
		"help":                                 {nil, "explain --help", 0, []string{"kubectl tide explain ihpa/cart -n shop", "--context"}, nil},
		"another namespace than the context's": {nil, "explain ihpa/cart -n bank", 1, nil, []string{"IntelligentHorizontalPodAutoscaler bank/cart"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := newCluster(t, test.answers).run(s.Record.Time, strings.Fields(test.args)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.out {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
			for _, want := range test.err {
				if !strings.Contains(errs, want) {
					t.Errorf("the error output lacks %q:\n%s", want, errs)
				}
			}
			if test.err == nil && errs != "" {
				t.Errorf("error output %q", errs)
			}
		})
	}
}

func TestTheLimitOfAHistoryIsAskedFor(t *testing.T) {
	for args, want := range map[string]string{"": "20", "--limit=3": "3", "--limit=0": "0"} {
		c := newCluster(t, nil)
		c.run(time.Now(), append([]string{"history", "ihpa/cart"}, strings.Fields(args)...)...)
		if len(c.asked) != 1 || c.asked[0] != historyPath+"?limit="+want {
			t.Errorf("%s: asked %v", args, c.asked)
		}
	}
}
