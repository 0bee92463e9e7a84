package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
)

// shop is an API server of one namespace with one StackSet. It can be watched, and written to with an optimistic lock.
type shop struct {
	t          *testing.T
	kubeconfig string

	mu sync.Mutex
	// lists are the objects by resource. A resource without a list is not served, and the ones in denied must not be read.
	lists    map[string][]runtime.Object
	denied   map[string]bool
	refused  chan string // the resources of requests that were denied
	watchers map[string]chan chan event
	asked    []string
	patches  []string
	// meanwhile, if set, is done once before a patch is looked at.
	meanwhile func()
}

type event struct {
	Type   string         `json:"type"`
	Object runtime.Object `json:"object"`
}

func newShop(t *testing.T, lists map[string][]runtime.Object) *shop {
	t.Helper()
	s := &shop{t: t, lists: lists, denied: map[string]bool{}, refused: make(chan string, 100), watchers: map[string]chan chan event{}}
	for resource := range lists {
		s.watchers[resource] = make(chan chan event, 10)
	}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	t.Cleanup(web.CloseClientConnections)
	s.kubeconfig = kubeconfigOf(t, web)
	return s
}

// cart is a StackSet whose Stacks have weights in the spec; routers have the same.
func cart(weights map[string]float64) map[string][]runtime.Object {
	set := &zalando.StackSet{TypeMeta: metav1.TypeMeta{APIVersion: "zalando.org/v1", Kind: "StackSet"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "set", ResourceVersion: "10"}}
	lists := map[string][]runtime.Object{"stacksets": {set}, "stacks": nil, "deployments": nil, "horizontalpodautoscalers": nil}
	for _, version := range slices.Sorted(maps.Keys(weights)) {
		stack := &zalando.Stack{TypeMeta: metav1.TypeMeta{APIVersion: "zalando.org/v1", Kind: "Stack"}, ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "cart-" + version, ResourceVersion: "10", OwnerReferences: []metav1.OwnerReference{{UID: "set"}}}}
		stack.Status.ActualTrafficWeight, stack.Status.DesiredTrafficWeight = weights[version], weights[version]
		lists["stacks"] = append(lists["stacks"], stack)
		if weights[version] > 0 {
			set.Spec.Traffic = append(set.Spec.Traffic, &zalando.DesiredTraffic{StackName: stack.Name, Weight: weights[version]})
		}
	}
	return lists
}

func (s *shop) set() *zalando.StackSet { return s.lists["stacksets"][0].(*zalando.StackSet) }

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // apis, group, version, namespaces, shop, resource, name
	fail := func(code int32, reason metav1.StatusReason) {
		a := status(code, reason, "", string(reason))
		if len(parts) == 7 {
			a.body = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code, Reason: reason,
				Message: string(reason), Details: &metav1.StatusDetails{Name: parts[6]}}
		}
		s.answer(w, int(code), a.body)
	}
	objects, served := s.lists[parts[5]]
	switch {
	case s.denied[parts[5]]:
		s.refused <- parts[5]
		fail(403, metav1.StatusReasonForbidden)
	case !served:
		http.NotFound(w, r)
	case r.Method == http.MethodPatch:
		s.patch(w, r, fail)
	case len(parts) == 7 && len(objects) > 0 && objects[0].(metav1.Object).GetName() == parts[6]:
		s.answer(w, http.StatusOK, objects[0])
	case len(parts) == 7:
		fail(404, metav1.StatusReasonNotFound)
	case r.URL.Query().Get("sendInitialEvents") == "true": // as an API server that cannot
		fail(422, metav1.StatusReasonInvalid)
	case r.URL.Query().Get("watch") == "true":
		s.watch(w, r, parts[5])
	default:
		if objects == nil {
			objects = []runtime.Object{}
		}
		s.answer(w, http.StatusOK, map[string]any{"apiVersion": parts[1] + "/" + parts[2], "kind": lists[parts[5]], "metadata": map[string]any{"resourceVersion": "10"}, "items": objects})
	}
}

var lists = map[string]string{"stacksets": "StackSetList", "stacks": "StackList", "deployments": "DeploymentList", "horizontalpodautoscalers": "HorizontalPodAutoscalerList"}

func (s *shop) answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.t.Error(err)
	}
}

func (s *shop) watch(w http.ResponseWriter, r *http.Request, resource string) {
	events := make(chan event, 10)
	s.watchers[resource] <- events
	s.mu.Unlock()
	defer s.mu.Lock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			if err := json.NewEncoder(w).Encode(e); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

func (s *shop) patch(w http.ResponseWriter, r *http.Request, fail func(int32, metav1.StatusReason)) {
	if do := s.meanwhile; do != nil {
		s.meanwhile = nil
		do()
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	var patch zalando.StackSet
	if err := json.Unmarshal(text, &patch); err != nil {
		s.t.Errorf("%s: %v", text, err)
	}
	if patch.ResourceVersion != s.set().ResourceVersion || patch.UID != s.set().UID {
		fail(409, metav1.StatusReasonConflict)
		return
	}
	s.patches = append(s.patches, string(text))
	s.set().Spec.Traffic = patch.Spec.Traffic
	s.answer(w, http.StatusOK, s.set())
}

// watcher is where events of the resource go, once it is watched.
func (s *shop) watcher(resource string) chan event {
	s.t.Helper()
	select {
	case w := <-s.watchers[resource]:
		s.watchers[resource] <- w
		return w
	case <-time.After(10 * time.Second):
		s.t.Fatalf("nobody watches %s", resource)
		return nil
	}
}

func (s *shop) run(args string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	p := plugin{out: &stdout, err: &stderr, clock: clocktesting.NewFakePassiveClock(noon), zone: time.UTC}
	code = p.run(append([]string{"--kubeconfig=" + s.kubeconfig}, strings.Fields(args)...))
	return code, stdout.String(), stderr.String()
}

func (s *shop) weights() string {
	var out []string
	for _, w := range s.set().Spec.Traffic {
		out = append(out, fmt.Sprintf("%s:%v", w.StackName, w.Weight))
	}
	return strings.Join(out, " ")
}

func TestTheTrafficIsSharedOutAnew(t *testing.T) {
	for name, c := range map[string]struct {
		before map[string]float64
		args   string
		want   string
	}{
		"the rest goes to the one other":           {map[string]float64{"v1": 100, "v2": 0}, "v2 25", "cart-v1:75 cart-v2:25"},
		"by the whole name":                        {map[string]float64{"v1": 100, "v2": 0}, "cart-v2 25", "cart-v1:75 cart-v2:25"},
		"with a sign":                              {map[string]float64{"v1": 100, "v2": 0}, "v2 25%", "cart-v1:75 cart-v2:25"},
		"all of it":                                {map[string]float64{"v1": 60, "v2": 40}, "v2 100", "cart-v2:100"},
		"none of it":                               {map[string]float64{"v1": 60, "v2": 40}, "v2 0", "cart-v1:100"},
		"the others keep their proportion":         {map[string]float64{"v1": 60, "v2": 30, "v3": 10}, "v3 40", "cart-v1:40 cart-v2:20 cart-v3:40"},
		"by largest remainder":                     {map[string]float64{"v1": 34, "v2": 33, "v3": 33}, "v3 50", "cart-v1:25 cart-v2:25 cart-v3:50"},
		"one of equal remainders, the bigger":      {map[string]float64{"v1": 20, "v2": 40, "v3": 40}, "v3 35", "cart-v1:22 cart-v2:43 cart-v3:35"},
		"weights that are no percents":             {map[string]float64{"v1": 1, "v2": 3, "v3": 0}, "v3 20", "cart-v1:20 cart-v2:60 cart-v3:20"},
		"the one that has all gets no less alone":  {map[string]float64{"v1": 100, "v2": 0}, "v1 100", "cart-v1:100"},
		"a version that is also another's ending":  {map[string]float64{"v1": 50, "cart-v1": 50}, "cart-v1 10", "cart-cart-v1:90 cart-v1:10"},
		"a name of the whole goes before versions": {map[string]float64{"v1": 50, "cart-v1": 50}, "cart-cart-v1 10", "cart-cart-v1:10 cart-v1:90"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, cart(c.before))
			before := s.weights()
			code, out, errs := s.run("traffic cart " + c.args)
			if code != 0 || errs != "" || s.weights() != c.want {
				t.Errorf("code %d, %q, spec.traffic is %s, want %s", code, errs, s.weights(), c.want)
			}
			if changed := before != c.want; changed != strings.Contains(out, "spec.traffic was changed") || changed == strings.Contains(out, "Nothing was changed") || changed != (len(s.patches) == 1) {
				t.Errorf("%d patches, and said:\n%s", len(s.patches), out)
			}
		})
	}
}

// Whatever the weights, the Stack gets what was asked for, the sum is 100, and nobody who had nothing gets some.
func TestSharesSumUpToAHundred(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &sharing{Name: "cart"}
		for i, w := range rapid.SliceOfN(rapid.Float64Range(0, 100), 2, 8).Draw(t, "weights") {
			if rapid.Bool().Draw(t, "none") {
				w = 0
			}
			s.Stacks = append(s.Stacks, part{Name: fmt.Sprint("cart-v", i), Weight: w})
		}
		weight := rapid.IntRange(0, 100).Draw(t, "weight")
		before := s.weights()
		if err := s.give("v1", weight); err != nil {
			for stack, w := range before {
				if stack != "cart-v1" && w > 0 || weight == 100 {
					t.Fatalf("%v although %s has %v", err, stack, w)
				}
			}
			return
		}
		sum := 0.0
		for i, p := range s.Stacks {
			if sum += p.Weight; i != 1 && p.Weight > 0 && before[p.Name] == 0 {
				t.Fatalf("%s has %v of nothing", p.Name, p.Weight)
			}
		}
		if sum != 100 || s.Stacks[1].Weight != float64(weight) {
			t.Fatalf("%v", s.Stacks)
		}
	})
}

func TestWhatCannotBeShared(t *testing.T) {
	for name, c := range map[string]struct {
		before map[string]float64
		args   string
		code   int
		want   string
	}{
		"an unknown Stack":      {map[string]float64{"v1": 100, "v2": 0}, "traffic cart v3 20", 1, "StackSet shop/cart has no Stack v3; there is cart-v1, cart-v2"},
		"no Stack at all":       {nil, "traffic cart v3 20", 1, "StackSet shop/cart has no Stack v3; there is none"},
		"nobody has the rest":   {map[string]float64{"v1": 100, "v2": 0}, "traffic cart v1 20", 1, "only cart-v1 gets traffic, so nobody could have the other 80 %"},
		"a negative weight":     {map[string]float64{"v1": 100}, "traffic cart v1 -- -1", 2, `the weight is a whole number from 0 to 100, in percent, not "-1"`},
		"a weight above all":    {map[string]float64{"v1": 100}, "traffic cart v1 101", 2, `not "101"`},
		"a part of a percent":   {map[string]float64{"v1": 100}, "traffic cart v1 0.5", 2, `not "0.5"`},
		"no number":             {map[string]float64{"v1": 100}, "traffic cart v1 all", 2, `not "all"`},
		"no weight":             {map[string]float64{"v1": 100}, "traffic cart v1", 2, "and to change its traffic a Stack and a weight"},
		"no name":               {map[string]float64{"v1": 100}, "traffic", 2, "name a StackSet"},
		"another StackSet":      {map[string]float64{"v1": 100}, "traffic other v1 10", 1, "there is no StackSet shop/other"},
		"a name that leads off": {map[string]float64{"v1": 100}, "traffic ../x v1 10", 2, "name a StackSet"},
		"a bad format":          {map[string]float64{"v1": 100}, "traffic cart -o xml", 2, "--output is text, json or yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, cart(c.before))
			code, out, errs := s.run(c.args)
			if code != c.code || out != "" || !strings.Contains(errs, c.want) || len(s.patches) > 0 {
				t.Errorf("code %d, %q, %q, want %q; patches %v", code, out, errs, c.want, s.patches)
			}
		})
	}
}

func TestNoWriteOfOthersIsLost(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100, "v2": 0, "v3": 0}))
	s.meanwhile = func() { // somebody gives v3 half of it
		s.set().ResourceVersion = "11"
		s.set().Spec.Traffic = []*zalando.DesiredTraffic{{StackName: "cart-v1", Weight: 50}, {StackName: "cart-v3", Weight: 50}}
	}
	code, out, errs := s.run("traffic cart v2 20")
	if want := "cart-v1:40 cart-v2:20 cart-v3:40"; code != 0 || s.weights() != want {
		t.Errorf("code %d, %q, spec.traffic is %s, want %s", code, errs, s.weights(), want)
	}
	golden(t, "testdata/traffic-changed.txt", []byte(out))
	if want := []string{`{"metadata":{"resourceVersion":"11","uid":"set"},"spec":{"traffic":[{"stackName":"cart-v1","weight":40},{"stackName":"cart-v2","weight":20},{"stackName":"cart-v3","weight":40}]}}`}; !cmp.Equal(want, s.patches) {
		t.Errorf("patches %v", s.patches)
	}
	if asked := s.asked[len(s.asked)-1]; asked != "PATCH /apis/zalando.org/v1/namespaces/shop/stacksets/cart?fieldManager=kubectl-tide" {
		t.Error(asked)
	}
	_, out, _ = s.run("traffic cart")
	golden(t, "testdata/traffic.txt", []byte(out))
	_, out, _ = s.run("traffic cart -o json")
	golden(t, "testdata/traffic.json", []byte(out))
}

// Where the spec asks for nothing, what is counts.
func TestTheTrafficOfASpecWithoutWeights(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 70, "v2": 30}))
	s.set().Spec.Traffic = nil
	if code, _, errs := s.run("traffic cart v2 60"); code != 0 || s.weights() != "cart-v1:40 cart-v2:60" {
		t.Errorf("%d, %q: %s", code, errs, s.weights())
	}
}

func TestGetStackSet(t *testing.T) {
	for name, c := range map[string]struct {
		args   string
		change func(*shop)
		code   int
		out    []string
		err    []string
	}{
		"by type and name":     {args: "get stackset cart", out: []string{"StackSet shop/cart", "├─ cart-v1  70 %", "└─ cart-v2  30 %"}},
		"by type/name":         {args: "get stackset/cart", out: []string{"cart-v1"}},
		"by plural":            {args: "get stacksets.zalando.org/cart", out: []string{"cart-v1"}},
		"in JSON":              {args: "get stackset cart -o json", out: []string{`"name": "cart-v1"`, `"actualWeight": 70`}},
		"who may list less":    {args: "get stackset cart", change: func(s *shop) { s.denied["deployments"] = true }, out: []string{"cart-v1", "! you may not list deployments here"}},
		"who may list nothing": {args: "get stackset cart", change: func(s *shop) { s.denied["stacks"] = true }, code: 1, err: []string{"stacks can't be listed"}},
		"who may read nothing": {args: "get stackset cart", change: func(s *shop) { s.denied["stacksets"] = true }, code: 1, err: []string{"StackSet shop/cart can't be read"}},
		"no such StackSet":     {args: "get stackset other", code: 1, err: []string{"there is no StackSet shop/other"}},
		"no CRD":               {args: "get stackset cart", change: func(s *shop) { delete(s.lists, "stacksets") }, code: 1, err: []string{"its CRDs are not installed"}},
		"another type":         {args: "get ihpa cart", code: 2, err: []string{`knows nothing of the type "ihpa": what it is about is stackset`}},
		"no name":              {args: "get stackset", code: 2, err: []string{"name one object, as kubectl tide get stackset/NAME"}},
		"help":                 {args: "get --help", out: []string{"--watch", "kubectl tide get stackset cart -n shop"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, cart(map[string]float64{"v1": 70, "v2": 30}))
			if c.change != nil {
				c.change(s)
			}
			code, out, errs := s.run(c.args)
			if code != c.code || (errs != "") != (c.err != nil) {
				t.Errorf("code %d, %q", code, errs)
			}
			for _, want := range c.out {
				if !strings.Contains(out, want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
			for _, want := range c.err {
				if !strings.Contains(errs, want) {
					t.Errorf("the error output lacks %q: %s", want, errs)
				}
			}
		})
	}
}

// A label of the StackSet can change what its objects are found by.
func TestWhatIsListedIsTheStackSets(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100}))
	s.run("get stackset cart")
	s.set().Labels = map[string]string{"stackset": "basket"}
	s.run("traffic cart")
	all := strings.Join(s.asked, "\n")
	for _, want := range []string{"stacks?labelSelector=stackset%3Dcart", "deployments?labelSelector=stackset%3Dcart", "stacks?labelSelector=stackset+in+%28cart%2Cbasket%29"} {
		if !strings.Contains(all, want) {
			t.Errorf("nobody asked for %s:\n%s", want, all)
		}
	}
}

// screen hands over what is written.
type screen chan string

func (s screen) Write(text []byte) (int, error) {
	s <- string(text)
	return len(text), nil
}

func (s screen) next(t *testing.T) string {
	t.Helper()
	select {
	case text := <-s:
		return text
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was written")
		return ""
	}
}

func watching(t *testing.T, s *shop, args string) (out, errs screen, code chan int) {
	out, errs, code = make(screen, 100), make(screen, 100), make(chan int, 1)
	p := plugin{out: out, err: errs, clock: clocktesting.NewFakePassiveClock(noon), zone: time.UTC}
	go func() {
		code <- p.run(append([]string{"--kubeconfig=" + s.kubeconfig}, strings.Fields(args)...))
	}()
	return out, errs, code
}

func exit(t *testing.T, code chan int) int {
	t.Helper()
	select {
	case c := <-code:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
		return 0
	}
}

func TestAWatchShowsEachChangeUntilCtrlC(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100, "v2": 0}))
	out, _, code := watching(t, s, "get stackset cart --watch")
	if text := out.next(t); !strings.Contains(text, "cart-v1  100 %    100 %") {
		t.Fatalf("at first: %s", text)
	}
	stack := s.lists["stacks"][1].(*zalando.Stack).DeepCopy()
	stack.ResourceVersion = "11"
	s.watcher("stacks") <- event{"MODIFIED", stack} // nothing that is shown
	stack = stack.DeepCopy()
	stack.ResourceVersion, stack.Status.ActualTrafficWeight = "12", 50
	s.watcher("stacks") <- event{"MODIFIED", stack}
	if text := out.next(t) + out.next(t); !strings.HasPrefix(text, "\nStackSet") || !strings.Contains(text, "cart-v2  0 %      50 %") {
		t.Errorf("after a change: %s", text)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if c := exit(t, code); c != 0 || len(out) > 0 {
		t.Errorf("exit code %d, %d more writes", c, len(out))
	}
}

func TestAWatchEndsWithItsStackSet(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100}))
	out, errs, code := watching(t, s, "get stackset cart --watch -o json")
	if text := out.next(t); !strings.HasPrefix(text, "{") {
		t.Fatalf("at first: %s", text)
	}
	s.watcher("stacksets") <- event{"DELETED", s.set()}
	if c := exit(t, code); c != 1 {
		t.Errorf("exit code %d", c)
	}
	if text := errs.next(t); !strings.Contains(text, "StackSet shop/cart is gone") {
		t.Error(text)
	}
}

func TestABrokenWatchIsSaidOnce(t *testing.T) {
	s := newShop(t, cart(map[string]float64{"v1": 100}))
	out, errs, code := watching(t, s, "get stackset cart --watch")
	out.next(t)
	deployments := s.watcher("deployments")
	s.mu.Lock()
	s.denied["deployments"] = true // taken away while it runs
	s.mu.Unlock()
	deployments <- event{"ERROR", &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired}}
	if text := errs.next(t); !strings.Contains(text, "deployments can't be watched") {
		t.Error(text)
	}
	for range 3 { // by the third, what the second came to was said
		select {
		case <-s.refused:
		case <-time.After(20 * time.Second):
			t.Fatal("it is not tried again")
		}
	}
	s.watcher("stacksets") <- event{"DELETED", s.set()}
	exit(t, code)
	if text := errs.next(t); !strings.Contains(text, "is gone") {
		t.Errorf("said in between: %s", text)
	}
}
