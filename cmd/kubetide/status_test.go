package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestStatusAsksTheServer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RequestURI() {
		case "/status/cluster/nodes":
			_, _ = w.Write([]byte(`[{"id":"a-1","state":"active","local":true,"collects":true},{"id":"b-2","state":"leaving","collects":true}]`))
		case "/status/cluster/nodes?status=leaving":
			_, _ = w.Write([]byte(`[{"id":"b-2","state":"leaving","collects":true}]`))
		case "/status/cluster/nodes/local?forward=b-2":
			_, _ = w.Write([]byte(`{"id":"b-2","state":"leaving","local":true,"collects":true}`))
		case "/status/cluster/queries":
			_, _ = w.Write([]byte(`[]`))
		default:
			http.Error(w, `this node knows no node "c"`, http.StatusNotFound)
		}
	}))
	defer server.Close()
	for name, tt := range map[string]struct {
		args      string
		want, err string
	}{
		"nodes":           {args: "nodes", want: "- collects: true\n  id: a-1\n  local: true\n  state: active\n- collects: true\n  id: b-2\n  state: leaving\n"},
		"of one state":    {args: "nodes --status leaving", want: "- collects: true\n  id: b-2\n  state: leaving\n"},
		"another's own":   {args: "node local --forward b-2", want: "collects: true\nid: b-2\nlocal: true\nstate: leaving\n"},
		"queries as JSON": {args: "queries -o json", want: "[]\n"},
		"unknown":         {args: "node c", err: `answers 404 Not Found: this node knows no node "c"`},
		"no format":       {args: "nodes -o table", err: `--output: must be yaml or json, is "table"`},
		"no URL":          {args: "nodes --server.url=localhost", err: `--server.url: must be a URL as http://localhost:8002, is "localhost"`},
		"nobody there":    {args: "nodes --server.url=http://127.0.0.1:1", err: "the server does not answer: "},
		"no name":         {args: "node", err: "accepts 1 arg(s), received 0"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := root()
			var out bytes.Buffer
			cmd.SetOut(&out)
			args := append([]string{"server", "status", "cluster"}, strings.Fields(tt.args)...)
			if !strings.Contains(tt.args, "--server.url") {
				args = append(args, "--server.url="+server.URL)
			}
			cmd.SetArgs(args)
			err := cmd.ExecuteContext(t.Context())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || out.String() != tt.want {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
}
