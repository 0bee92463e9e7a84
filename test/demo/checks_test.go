package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestALostRequestIsSeen(t *testing.T) {
	for name, test := range map[string]struct {
		counts counts
		err    string
	}{
		"all answered":            {counts{Sent: 5, By: map[string]int{"old": 2, "new": 3}}, ""},
		"one lost":                {counts{Sent: 5, By: map[string]int{"old": 2, "new": 2}, Lost: 1, Error: "404 Not Found"}, "lost: 1; the first lost one: 404 Not Found"},
		"one answered by another": {counts{Sent: 5, By: map[string]int{"old": 2, "new": 2, "": 1}}, "5 requests"},
		"none of the new":         {counts{Sent: 2, By: map[string]int{"old": 2}}, "new answered no request"},
	} {
		err := test.counts.check("old", "new")
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: the error is %v, want %q", name, err, test.err)
		}
	}
}

func TestReadsThatFailAndOldValuesAreSeen(t *testing.T) {
	began := time.Now()
	at := began.Add
	failed := errors.New("503")
	for name, test := range map[string]struct {
		reads func(*tally)
		err   string
	}{
		"all well":                               {func(t *tally) { t.add(at(6*time.Second), at(0), nil) }, ""},
		"one fails before the kill":              {func(t *tally) { t.add(at(0), time.Time{}, failed); t.died(at(time.Second)) }, "503"},
		"one fails until the death is seen":      {func(t *tally) { t.died(at(0)); t.add(at(clusterUnready), time.Time{}, failed) }, ""},
		"one fails after that":                   {func(t *tally) { t.died(at(0)); t.add(at(clusterUnready+1), time.Time{}, failed) }, "503"},
		"a value as old as an interval and more": {func(t *tally) { t.add(at(clusterOldest), at(0), nil) }, ""},
		"a value that is too old":                {func(t *tally) { t.add(at(clusterOldest+1), at(0), nil) }, "want at most 12s"},
	} {
		var reads tally
		test.reads(&reads)
		err := reads.check()
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: the error is %v, want %q", name, err, test.err)
		}
	}
}

func TestNodesAreOfPods(t *testing.T) {
	for id, want := range map[string]bool{"kubetide-1-abc": true, "kubetide-1": false, "kubetide-10-abc": false, "kubetide-2-abc": false} {
		if got := ofServer(id, "kubetide-1"); got != want {
			t.Errorf("%s is of kubetide-1: %v, want %v", id, got, want)
		}
	}
}

// All that was sent is counted, also what is on its way when sending ends.
func TestRequestsAreCounted(t *testing.T) {
	var asked atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example" {
			t.Errorf("asked for %s", r.Host)
		}
		switch asked.Add(1) {
		case 1, 10: // the first is before the host is known, which does not count
			http.NotFound(w, r)
		case 20:
			stop()
			fallthrough
		default:
			_, _ = w.Write([]byte("shop-v1"))
		}
	}))
	defer server.Close()
	var out strings.Builder
	send(ctx, &out, server.URL, "shop.example", 200)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var last counts
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	// The first two only found out that the host is known.
	if sent := int(asked.Load()) - 2; last.Sent != sent || last.By["shop-v1"] != sent-1 || last.Lost != 1 || !strings.Contains(last.Error, "404") {
		t.Errorf("of %d: %s, %s", sent, last, last.Error)
	}
}

func TestAPodsProcessIsFoundByItsEnvironment(t *testing.T) {
	const uid = "1c8b0d4e-demo-test"
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), "POD_UID="+uid)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pid, err := processOf(uid)
	if err != nil || pid != cmd.Process.Pid {
		t.Errorf("found %d (%v), want %d", pid, err, cmd.Process.Pid)
	}
	if _, err := processOf(uid + "-other"); err == nil {
		t.Error("a process was found for a pod that there is not")
	}
}

func TestManifestsAreObjects(t *testing.T) {
	files, err := manifests.ReadDir("manifests")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := manifests.ReadFile("manifests/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		objects, err := decode(data)
		if err != nil || len(objects) == 0 {
			t.Errorf("%s: %d objects, %v", f.Name(), len(objects), err)
		}
		for _, o := range objects {
			if o.GetKind() == "" || o.GetName() == "" || o.GetNamespace() != "" {
				t.Errorf("%s: %s %q in the namespace %q", f.Name(), o.GetKind(), o.GetName(), o.GetNamespace())
			}
		}
	}
}
